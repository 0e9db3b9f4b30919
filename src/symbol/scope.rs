//! The scopes around a function that the linker does not know: what only its compilation unit sees (`static`, unnamed
//! namespaces, lambdas) has no linkage name, so its namespace and class are read off the tree of debug information.

use gimli::{AttributeValue, Reader, UnitOffset, UnitRef};

/// The longest chain of references from a use to the declaration.
const LONGEST_CHAIN: usize = 8;

/// The deepest nesting of local classes in functions.
const DEEPEST_NESTING: usize = 8;

/// True for the languages whose functions have scopes, if the debug information does not name them mangled.
fn has_scopes<R: Reader<Offset = usize>>(unit: UnitRef<'_, R>) -> Option<bool> {
    let root = unit.entry(unit.header.root_offset()).ok()?;
    let Some(AttributeValue::Language(language)) = root.attr_value(gimli::DW_AT_language) else { return None };
    Some(matches!(
        language,
        gimli::DW_LANG_C_plus_plus
            | gimli::DW_LANG_C_plus_plus_03
            | gimli::DW_LANG_C_plus_plus_11
            | gimli::DW_LANG_C_plus_plus_14
            | gimli::DW_LANG_C_plus_plus_17
            | gimli::DW_LANG_C_plus_plus_20
    ))
}

/// `namespace::Class::name` of the function that the entry at `use_of` is, or is an instance of. `None` if its declaration
/// is in another unit, or damaged, or if the language is not C++.
pub(super) fn qualified_name<R: Reader<Offset = usize>>(unit: UnitRef<'_, R>, use_of: UnitOffset) -> Option<String> {
    if !has_scopes(unit)? {
        return None;
    }
    Some(scopes(unit, use_of, DEEPEST_NESTING)?.join("::"))
}

fn scopes<R: Reader<Offset = usize>>(unit: UnitRef<'_, R>, use_of: UnitOffset, nesting: usize) -> Option<Vec<String>> {
    let target = declaration(unit, use_of)?;
    let is_closure = name(unit, target).as_deref() == Some("operator()");
    let mut names = Vec::new();
    for ancestor in path_to(unit, target)? {
        let declared_at = declaration(unit, ancestor)?;
        if declared_at != ancestor {
            // What is local to a function stands where that is defined; its scopes are around its declaration.
            names = scopes(unit, declared_at, nesting.checked_sub(1)?)?;
            continue;
        }
        let unnamed = match unit.entry(ancestor).ok()?.tag() {
            gimli::DW_TAG_namespace => "(anonymous namespace)",
            gimli::DW_TAG_class_type | gimli::DW_TAG_structure_type if is_closure => "{lambda}",
            gimli::DW_TAG_class_type | gimli::DW_TAG_structure_type | gimli::DW_TAG_union_type => "(anonymous class)",
            gimli::DW_TAG_subprogram => "(anonymous function)",
            _ => continue,
        };
        names.push(name(unit, ancestor).unwrap_or_else(|| unnamed.to_owned()));
    }
    Some(names)
}

/// The entry that stands where the function was declared.
fn declaration<R: Reader<Offset = usize>>(unit: UnitRef<'_, R>, mut at: UnitOffset) -> Option<UnitOffset> {
    for _ in 0..LONGEST_CHAIN {
        let entry = unit.entry(at).ok()?;
        let origin = entry.attr_value(gimli::DW_AT_abstract_origin);
        match origin.or_else(|| entry.attr_value(gimli::DW_AT_specification)) {
            None => return Some(at),
            Some(AttributeValue::UnitRef(offset)) => at = offset,
            Some(_) => return None,
        }
    }
    None
}

/// The entries around the one at `target`, outermost first, and that one.
fn path_to<R: Reader<Offset = usize>>(unit: UnitRef<'_, R>, target: UnitOffset) -> Option<Vec<UnitOffset>> {
    let mut entries = unit.entries_raw(None).ok()?;
    let mut path: Vec<(isize, UnitOffset)> = Vec::new();
    while !entries.is_empty() && entries.next_offset() <= target {
        let (offset, depth) = (entries.next_offset(), entries.next_depth());
        let Some(abbreviation) = entries.read_abbreviation().ok()? else { continue };
        entries.skip_attributes(abbreviation.attributes()).ok()?;
        while path.last().is_some_and(|&(above, _)| above >= depth) {
            path.pop();
        }
        path.push((depth, offset));
    }
    (path.last()?.1 == target).then(|| path.into_iter().map(|(_, offset)| offset).collect())
}

fn name<R: Reader<Offset = usize>>(unit: UnitRef<'_, R>, at: UnitOffset) -> Option<String> {
    let value = unit.entry(at).ok()?.attr_value(gimli::DW_AT_name)?;
    Some(unit.attr_string(value).ok()?.to_string_lossy().ok()?.into_owned())
}
