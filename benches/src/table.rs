use crate::measure::Cost;

/// A Markdown table of the medians of measurements.
#[derive(Debug, Default)]
pub struct Table {
    rows: Vec<(String, Vec<Cost>)>,
}

impl Table {
    /// Creates an empty table.
    pub fn new() -> Table {
        Table::default()
    }

    /// Adds a measurement to the row with this name.
    pub fn add(&mut self, name: &str, cost: Cost) {
        match self.rows.iter_mut().find(|(known, _)| known == name) {
            Some((_, costs)) => costs.push(cost),
            None => self.rows.push((name.to_owned(), vec![cost])),
        }
    }

    /// Returns the total time in seconds of the row with this name.
    pub fn total(&self, name: &str) -> f64 {
        let row = self.rows.iter().find(|(known, _)| known == name);
        row.map_or(0.0, |(_, costs)| costs.iter().map(|cost| cost.wall).sum())
    }

    /// Prints the table. The ratios compare with the time of the first row.
    pub fn print(&self, title: &str) {
        let first = self.rows.first().map_or(1.0, |(_, costs)| median(costs, |cost| cost.wall));
        println!("\n{title}\n");
        let has = |of: Column| self.rows.iter().flat_map(|(_, costs)| costs).any(|cost| of(cost).is_some());
        let columns: [(&str, Column); 2] = [("requests", |cost| cost.requests), ("result bytes", |cost| cost.result)];
        let columns: Vec<_> = columns.into_iter().filter(|(_, of)| has(*of)).collect();
        let heading: String = columns.iter().map(|(name, _)| format!(" {name} |")).collect();
        println!("| | seconds | spread | ratio to ocikit | processor s | memory MiB | written MiB |{heading}");
        println!("|---|---|---|---|---|---|---|{}", "---|".repeat(columns.len()));
        for (name, costs) in &self.rows {
            let wall = median(costs, |cost| cost.wall);
            let (min, max) = costs
                .iter()
                .fold((f64::MAX, 0.0), |(min, max): (f64, f64), cost| (min.min(cost.wall), max.max(cost.wall)));
            let counted = |of: &Column| match costs.iter().any(|cost| of(cost).is_some()) {
                true => format!(" {} |", median(costs, |cost| of(cost).unwrap_or_default() as f64)),
                false => " |".to_owned(),
            };
            let counted: String = columns.iter().map(|(_, of)| counted(of)).collect();
            println!(
                "| {name} | {wall:.4} | {min:.3}–{max:.3} | {:.2} | {:.3} | {:.1} | {:.1} |{counted}",
                wall / first,
                median(costs, |cost| cost.processor),
                median(costs, |cost| cost.memory as f64 / 1024.0),
                median(costs, |cost| cost.written as f64 / f64::from(1 << 20)),
            );
        }
    }
}

/// A number that some benchmarks count.
type Column = fn(&Cost) -> Option<u64>;

fn median(costs: &[Cost], of: impl Fn(&Cost) -> f64) -> f64 {
    let mut values: Vec<f64> = costs.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
