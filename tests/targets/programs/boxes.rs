//! Generics, closures, trait objects and inlined library code.

use std::collections::BTreeMap;

trait Keep {
    fn keep(&mut self, size: usize) -> usize;
}

#[derive(Default)]
struct Shelf<T> {
    boxes: Vec<Box<[T]>>,
    names: BTreeMap<usize, String>,
}

impl<T: Clone + Default> Keep for Shelf<T> {
    #[inline(never)]
    fn keep(&mut self, size: usize) -> usize {
        self.boxes.push(vec![T::default(); size].into_boxed_slice());
        self.names.insert(size, format!("box of {size}"));
        self.boxes.len()
    }
}

#[inline(never)]
fn each(sizes: &[usize], mut action: impl FnMut(usize)) {
    sizes.iter().copied().filter(|size| size % 2 == 0).for_each(|size| action(size));
}

fn main() {
    let mut shelves: Vec<Box<dyn Keep>> = vec![Box::<Shelf<u8>>::default(), Box::<Shelf<String>>::default()];
    let sizes: Vec<usize> = (1..8).collect();
    let mut total = 0;
    each(&sizes, |size| {
        for shelf in &mut shelves {
            total += shelf.keep(size);
        }
    });
    println!("{total}");
}
