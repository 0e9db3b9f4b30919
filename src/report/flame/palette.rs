//! Colours of functions: of equal ones the same in each picture.
//!
//! The hue is the module's (the executable is warm, code in no file grey), the shade the function's. Each colour comes for light and for dark
//! surroundings; the text on it has a contrast of at least 5.9 (WCAG asks for 4.5). They are of about the same lightness in OKLCH.

use std::fmt::Write as _;

use super::Function;
use crate::profile::Change;

/// Families of hues, six shades each: (light, dark).
const FAMILIES: [[(&str, &str); 6]; 7] = [
    // The executable.
    [
        ("#f9a68c", "#7a402e"),
        ("#fcaf88", "#703c1e"),
        ("#ffba85", "#66380c"),
        ("#ebb171", "#714815"),
        ("#eabc73", "#654503"),
        ("#e7c778", "#584100"),
    ],
    [
        ("#aacb81", "#455b24"),
        ("#a8d48e", "#375623"),
        ("#a5dc9b", "#295022"),
        ("#8fd096", "#2f5f36"),
        ("#8dd8a5", "#1e5935"),
        ("#8be0b3", "#075235"),
    ],
    [
        ("#69d4be", "#006152"),
        ("#6bdacc", "#005a51"),
        ("#6ee1da", "#00534f"),
        ("#5ed3d4", "#006062"),
        ("#65d8e1", "#00595f"),
        ("#6ddeee", "#00515d"),
    ],
    [
        ("#72caf6", "#0d5a79"),
        ("#80ceff", "#0f5174"),
        ("#8ed2ff", "#12496f"),
        ("#89c3ff", "#2a557f"),
        ("#97c7ff", "#2b4c79"),
        ("#a5cbff", "#2b4472"),
    ],
    [
        ("#b8b4ff", "#4f4b7f"),
        ("#c5b8ff", "#4d4276"),
        ("#d3bcff", "#4b3a6c"),
        ("#ccadf5", "#5d4679"),
        ("#d9b1f7", "#5a3e6e"),
        ("#e6b6f9", "#573563"),
    ],
    [
        ("#eaa3d5", "#703f63"),
        ("#f5a9d4", "#6c3756"),
        ("#ffaed2", "#66304a"),
        ("#f5a1bd", "#773d52"),
        ("#fea7bb", "#713645"),
        ("#ffaeb8", "#6b2f39"),
    ],
    // Code in no file, and the root.
    [
        ("#c6c7ca", "#46484b"),
        ("#cacbce", "#494b4e"),
        ("#cdcfd2", "#4c4e51"),
        ("#d1d3d5", "#4f5155"),
        ("#d5d7d9", "#535558"),
        ("#d9dbdd", "#56585b"),
    ],
];
const EXECUTABLE: usize = 0;
const NOWHERE: usize = 6;

/// What grew, little to much.
const GREW: [(&str, &str); 5] = [
    ("#f8deda", "#473937"),
    ("#fac8c1", "#5d3b36"),
    ("#fab2a8", "#723b34"),
    ("#f99c90", "#883931"),
    ("#f78577", "#9d352d"),
];
/// What shrank, little to much.
const SHRANK: [(&str, &str); 5] = [
    ("#d8e6f9", "#363e48"),
    ("#bdd8fc", "#334660"),
    ("#a2caff", "#2d4e78"),
    ("#86bcff", "#255691"),
    ("#6aadff", "#195daa"),
];

/// Gives functions their colours, as classes that [`style`] defines.
#[derive(Clone, Copy, Debug)]
pub(in crate::report) struct Palette<'a> {
    executable: &'a str,
}

impl<'a> Palette<'a> {
    /// For a program, by its executable's path.
    pub(in crate::report) fn of(executable: &'a str) -> Palette<'a> {
        Palette { executable }
    }

    /// The class of a function: a letter for the family, a digit for the shade.
    pub(in crate::report) fn class(self, function: &Function<'_>) -> String {
        let file = function.module.rsplit('/').next().unwrap_or_default();
        let family = match function.module {
            "" => NOWHERE,
            module if module == self.executable => EXECUTABLE,
            _ => 1 + usize::from(digest(file).to_le_bytes()[0]) % 5,
        };
        class(family, usize::from(digest(&function.name).to_le_bytes()[0]) % 6)
    }

    /// The root's class.
    pub(in crate::report) fn root() -> String {
        class(NOWHERE, 0)
    }
}

/// The class of what changed by `change.bytes` on the whole, and by `weight` bytes whatever their signs.
pub(in crate::report) fn growth_class(change: Change, weight: u128) -> String {
    let net = u128::from(change.bytes.unsigned_abs());
    if net == 0 {
        return Palette::root();
    }
    // A fifth each, upwards.
    let step = net.saturating_mul(5).div_ceil(weight.max(1)).clamp(1, 5) - 1;
    format!("{}{step}", if change.bytes > 0 { 'g' } else { 's' })
}

/// The classes in CSS, as fills; those of `prefers-color-scheme: dark` included.
pub(in crate::report) fn style() -> String {
    let mut light = String::new();
    let mut dark = String::new();
    let families = FAMILIES.iter().enumerate();
    let functions =
        families.flat_map(|(family, shades)| shades.iter().enumerate().map(move |(n, of)| (class(family, n), of)));
    let grew = GREW.iter().enumerate().map(|(n, of)| (format!("g{n}"), of));
    let shrank = SHRANK.iter().enumerate().map(|(n, of)| (format!("s{n}"), of));
    for (class, (in_light, in_dark)) in functions.chain(grew).chain(shrank) {
        _ = write!(light, ".{class}{{fill:{in_light}}}");
        _ = write!(dark, ".{class}{{fill:{in_dark}}}");
    }
    format!("{light}\n@media(prefers-color-scheme:dark){{{dark}}}\n")
}

fn class(family: usize, shade: usize) -> String {
    const LETTERS: [char; 7] = ['a', 'b', 'c', 'd', 'e', 'f', 'n'];
    format!("{}{shade}", LETTERS[family])
}

/// FNV-1a, its upper half folded in: the same on each machine and in each version.
fn digest(text: &str) -> u32 {
    let hash = text
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    ((hash >> 32) ^ hash) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn luminance(colour: &str) -> f64 {
        let channel = |at: usize| {
            let value = f64::from(u8::from_str_radix(&colour[at..at + 2], 16).expect("hexadecimal")) / 255.0;
            if value <= 0.03928 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
        };
        0.2126 * channel(1) + 0.7152 * channel(3) + 0.0722 * channel(5)
    }

    fn contrast(one: &str, other: &str) -> f64 {
        let (one, other) = (luminance(one), luminance(other));
        (one.max(other) + 0.05) / (one.min(other) + 0.05)
    }

    #[test]
    fn text_is_legible_on_each_colour() {
        for (light, dark) in FAMILIES.iter().flatten().chain(&GREW).chain(&SHRANK) {
            assert!(contrast(light, "#1b1b1b") > 5.9, "{light}");
            assert!(contrast(dark, "#f4f4f4") > 5.9, "{dark}");
        }
    }

    #[test]
    fn colours_tell_modules_apart_and_stay_the_same() {
        let palette = Palette::of("/srv/server");
        let class = |name: &str, module| palette.class(&Function { name: name.into(), module });
        assert_eq!(class("main", "/srv/server"), class("main", "/srv/server"));
        assert!(class("main", "/srv/server").starts_with('a'));
        assert!(class("0x7fff", "").starts_with('n'));
        assert_eq!(class("malloc", "/usr/lib/libc.so.6"), class("malloc", "/lib64/libc.so.6"));
        // FNV-1a's own test vector, folded.
        assert_eq!(digest("a"), 0xaf63_dc4c ^ 0x8601_ec8c);
    }

    #[test]
    fn growth_is_red_and_shrinking_blue_by_what_remains() {
        let class = |bytes, weight| growth_class(Change { count: 0, bytes }, weight);
        assert_eq!(
            (class(100, 100), class(1, 100), class(-100, 100), class(0, 100)),
            ("g4".into(), "g0".into(), "s4".into(), Palette::root())
        );
        assert_eq!(class(i64::MIN, u128::MAX), "s0");
        assert!(style().contains(".g4{") && style().contains(".s0{"));
    }
}
