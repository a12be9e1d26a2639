//! A set of paths as a tree, with the operations of sets.
//!
//! Both lists are sorted, so the operations are merges. A member is a path that ends at an element; a child is what lies below it.

use std::cmp::Ordering;

use super::element::{Element, Path};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Set {
    pub(super) members: Vec<Element>,
    pub(super) children: Vec<(Element, Set)>,
}

/// Paths by their steps; `*` stands for any step.
pub type Pattern = [&'static str];

/// In which of two sorted lists an element is.
enum Side<A, B> {
    Left(A),
    Both(A, B),
    Right(B),
}

/// Two sorted lists side by side.
fn zip<'a, T>(a: &'a [T], b: &'a [T], order: impl Fn(&T, &T) -> Ordering) -> impl Iterator<Item = Side<&'a T, &'a T>> {
    let (mut a, mut b) = (a.iter().peekable(), b.iter().peekable());
    std::iter::from_fn(move || match (a.peek(), b.peek()) {
        (Some(x), Some(y)) => Some(match order(x, y) {
            Ordering::Less => Side::Left(a.next()?),
            Ordering::Equal => Side::Both(a.next()?, b.next()?),
            Ordering::Greater => Side::Right(b.next()?),
        }),
        (Some(_), None) => a.next().map(Side::Left),
        (None, Some(_)) => b.next().map(Side::Right),
        (None, None) => None,
    })
}

fn zip_members<'a>(a: &'a Set, b: &'a Set) -> impl Iterator<Item = Side<&'a Element, &'a Element>> {
    zip(&a.members, &b.members, Element::cmp)
}

type Child = (Element, Set);

fn zip_children<'a>(a: &'a Set, b: &'a Set) -> impl Iterator<Item = Side<&'a Child, &'a Child>> {
    zip(&a.children, &b.children, |x, y| x.0.cmp(&y.0))
}

impl Set {
    pub fn new() -> Self {
        Set::default()
    }

    /// The set of paths of fields.
    pub fn of(paths: &[&[&'static str]]) -> Self {
        let mut set = Set::new();
        for path in paths {
            set.insert(&path.iter().map(|name| Element::field(*name)).collect::<Vec<_>>());
        }
        set
    }

    pub fn insert(&mut self, path: &[Element]) {
        match path {
            [] => {}
            [last] => self.insert_member(last.clone()),
            [first, rest @ ..] => self.descend(first).insert(rest),
        }
    }

    pub(super) fn insert_member(&mut self, element: Element) {
        if let Err(at) = self.members.binary_search(&element) {
            self.members.insert(at, element);
        }
    }

    pub(super) fn descend(&mut self, element: &Element) -> &mut Set {
        let at = match self.child_at(element) {
            Ok(at) => at,
            Err(at) => {
                self.children.insert(at, (element.clone(), Set::new()));
                at
            }
        };
        &mut self.children[at].1
    }

    fn child_at(&self, element: &Element) -> Result<usize, usize> {
        self.children.binary_search_by(|(own, _)| own.cmp(element))
    }

    pub(super) fn child(&self, element: &Element) -> Option<&Set> {
        self.child_at(element).ok().map(|at| &self.children[at].1)
    }

    pub(super) fn has_member(&self, element: &Element) -> bool {
        self.members.binary_search(element).is_ok()
    }

    pub fn has(&self, path: &[Element]) -> bool {
        match path {
            [] => false,
            [last] => self.has_member(last),
            [first, rest @ ..] => self.child(first).is_some_and(|child| child.has(rest)),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.members.is_empty() && self.children.iter().all(|(_, child)| child.is_empty())
    }

    pub fn union(&self, other: &Set) -> Set {
        if other.members.is_empty() && other.children.is_empty() {
            return self.clone();
        }
        let members = zip_members(self, other).map(|side| match side {
            Side::Left(one) | Side::Both(one, _) | Side::Right(one) => one.clone(),
        });
        let children = zip_children(self, other).map(|side| match side {
            Side::Left(one) | Side::Right(one) => one.clone(),
            Side::Both(a, b) => (a.0.clone(), a.1.union(&b.1)),
        });
        Set { members: members.collect(), children: children.collect() }
    }

    pub fn intersection(&self, other: &Set) -> Set {
        let members = zip_members(self, other).filter_map(|side| match side {
            Side::Both(one, _) => Some(one.clone()),
            _ => None,
        });
        let children = zip_children(self, other).filter_map(|side| match side {
            Side::Both(a, b) => Some((a.0.clone(), a.1.intersection(&b.1))).filter(|(_, child)| !child.is_empty()),
            _ => None,
        });
        Set { members: members.collect(), children: children.collect() }
    }

    /// Without the paths of `other`; what lies below them stays.
    pub fn difference(&self, other: &Set) -> Set {
        let children = zip_children(self, other).filter_map(|side| match side {
            Side::Left(one) => Some(one.clone()),
            Side::Both(a, b) => Some((a.0.clone(), a.1.difference(&b.1))).filter(|(_, child)| !child.is_empty()),
            Side::Right(_) => None,
        });
        Set { members: self.members_without(other), children: children.collect() }
    }

    /// Without the paths of `other` and what lies below them.
    pub fn recursive_difference(&self, other: &Set) -> Set {
        let children = zip_children(self, other).filter_map(|side| {
            let (own, child) = match side {
                Side::Left(one) => (one, one.1.clone()),
                Side::Both(a, b) => (a, a.1.recursive_difference(&b.1)),
                Side::Right(_) => return None,
            };
            let stays = !other.has_member(&own.0) && !child.is_empty();
            stays.then(|| (own.0.clone(), child))
        });
        Set { members: self.members_without(other), children: children.collect() }
    }

    fn members_without(&self, other: &Set) -> Vec<Element> {
        let left = zip_members(self, other).filter_map(|side| match side {
            Side::Left(one) => Some(one.clone()),
            _ => None,
        });
        left.collect()
    }

    /// Only what lies at or below one of the patterns, and the members on the way there.
    pub fn matching(&self, patterns: &[&Pattern]) -> Set {
        if patterns.iter().any(|pattern| pattern.is_empty()) {
            return self.clone();
        }
        let rest = |element: &Element| -> Vec<&Pattern> {
            patterns.iter().filter(|pattern| matches(pattern[0], element)).map(|pattern| &pattern[1..]).collect()
        };
        let members = self.members.iter().filter(|member| !rest(member).is_empty());
        let children = self.children.iter().filter_map(|(element, child)| {
            let rest = rest(element);
            if rest.is_empty() {
                return None;
            }
            Some((element.clone(), child.matching(&rest))).filter(|(_, child)| !child.is_empty())
        });
        Set { members: members.cloned().collect(), children: children.collect() }
    }

    /// Every path, the members of a level before what lies below it.
    pub fn paths(&self) -> Vec<Path> {
        let mut out = Vec::new();
        self.gather(&mut Vec::new(), &mut out);
        out
    }

    fn gather(&self, prefix: &mut Vec<Element>, out: &mut Vec<Path>) {
        for member in &self.members {
            let mut path = prefix.clone();
            path.push(member.clone());
            out.push(Path(path));
        }
        for (element, child) in &self.children {
            prefix.push(element.clone());
            child.gather(prefix, out);
            prefix.pop();
        }
    }
}

fn matches(step: &str, element: &Element) -> bool {
    step == "*" || matches!(element, Element::Field(name) if name == step)
}

/// What a walk finds below one place, in the order of the walk.
#[derive(Default)]
pub(super) struct Found {
    members: Vec<Element>,
    children: Vec<(Element, Set)>,
}

impl Found {
    pub(super) fn add(&mut self, element: Element, member: bool, below: Set) {
        let has_children = !(below.members.is_empty() && below.children.is_empty());
        match (member, has_children) {
            (true, true) => {
                self.members.push(element.clone());
                self.children.push((element, below));
            }
            (true, false) => self.members.push(element),
            (false, true) => self.children.push((element, below)),
            (false, false) => {}
        }
    }

    pub(super) fn set(mut self) -> Set {
        self.members.sort_unstable();
        self.members.dedup();
        self.children.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        Set { members: self.members, children: self.children }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(text: &str) -> Set {
        Set::parse(text).unwrap()
    }

    #[test]
    fn operations_are_those_of_sets() {
        let check = |found: Set, expected: &str| assert_eq!(found.to_json(), expected);
        let a = set(r#"{"f:a":{},"f:b":{".":{},"f:c":{}},"f:l":{"k:{\"n\":1}":{".":{},"f:n":{}}}}"#);
        let b = set(r#"{"f:b":{},"f:l":{"k:{\"n\":1}":{"f:n":{}},"k:{\"n\":2}":{}}}"#);
        check(
            a.union(&b),
            r#"{"f:a":{},"f:b":{".":{},"f:c":{}},"f:l":{"k:{\"n\":1}":{".":{},"f:n":{}},"k:{\"n\":2}":{}}}"#,
        );
        check(a.intersection(&b), r#"{"f:b":{},"f:l":{"k:{\"n\":1}":{"f:n":{}}}}"#);
        check(a.difference(&b), r#"{"f:a":{},"f:b":{"f:c":{}},"f:l":{"k:{\"n\":1}":{}}}"#);
        check(a.recursive_difference(&b), r#"{"f:a":{},"f:l":{"k:{\"n\":1}":{}}}"#);
        check(a.recursive_difference(&set(r#"{"f:l":{},"f:a":{}}"#)), r#"{"f:b":{".":{},"f:c":{}}}"#);
        check(a.matching(&[&["l", "*", "n"]]), r#"{"f:l":{"k:{\"n\":1}":{".":{},"f:n":{}}}}"#);
        check(a.matching(&[&["b", "x"]]), r#"{"f:b":{}}"#);
    }

    #[test]
    fn paths_print_as_conflicts_name_them() {
        let paths =
            set(r#"{"f:s":{"f:l":{"k:{\"b\":\"T\",\"a\":80}":{".":{},"f:x":{}},"v:\"e\"":{},"i:3":{}}}}"#).paths();
        let shown: Vec<String> = paths.iter().map(ToString::to_string).collect();
        assert_eq!(shown, [r#".s.l[a=80,b="T"]"#, r#".s.l[="e"]"#, ".s.l[3]", r#".s.l[a=80,b="T"].x"#]);
    }
}
