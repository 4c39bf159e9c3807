/// Adds a method for each listed field to a struct of options, so that programs can write
/// `Options::default().jobs(4)` although the struct is `#[non_exhaustive]`. For the crates of this project.
#[doc(hidden)]
#[macro_export]
macro_rules! setters {
    ($options:ident { $($field:ident: $kind:ty,)* }) => {
        impl $options {
            $(
                #[doc = concat!("Returns the options with another value of the field `", stringify!($field), "`.")]
                #[must_use]
                pub fn $field(mut self, $field: $kind) -> Self {
                    self.$field = $field;
                    self
                }
            )*
        }
    };
}
