mod convert;
mod devices;
mod erofs;
mod hard;
mod hostile;
mod random;
