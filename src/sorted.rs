//! Maps and sets as sorted vectors. They hold files and objects, of which there are at most a few
//! thousand, and which mostly come in order. The code of std's B-trees is made anew for each type
//! of key and value, which was 155 KB more in all.

mod map;
mod set;

pub use map::SortedMap;
pub use set::SortedSet;
