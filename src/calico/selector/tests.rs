use proptest::prelude::*;

use super::*;

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

fn selects(text: &str, pairs: &[(&str, &str)]) -> bool {
    Selector::parse(text).unwrap_or_else(|e| panic!("{text}: {e}")).selects(&labels(pairs))
}

#[test]
fn comparisons_of_present_and_absent_labels() {
    let rack = &[("rack", "r1")][..];
    for yes in [
        "rack == 'r1'",
        "rack=='r1'",
        "rack == \"r1\"",
        "rack != 'r2'",
        "other != 'r2'",
        "rack contains ''",
        "rack contains 'r'",
        "rack starts with 'r'",
        "rack startswith'r'",
        "rack ends \t with '1'",
        "rack in {'r1', 'r2'}",
        "rack in{'r1',}",
        "rack notin {'r2'}",
        "rack not in {}",
        "other not in {'r1'}",
        "has(rack)",
        "has( rack )",
        "all()",
        "global( )",
        "",
        " \t",
        "!has(other)",
        "!!has(rack)",
        "!rack == 'r2'",
    ] {
        assert!(selects(yes, rack), "{yes}");
    }
    for no in [
        "rack == 'R1'",
        "other == 'r1'",
        "rack != 'r1'",
        "other contains ''",
        "other starts with ''",
        "other ends with ''",
        "rack in {}",
        "other in {'r1'}",
        "rack not in {'r1'}",
        "has(other)",
        "!all()",
    ] {
        assert!(!selects(no, rack), "{no}");
    }
    assert!(selects("has(empty) && empty == ''", &[("empty", "")]));
}

#[test]
fn and_binds_tighter_than_or_and_not_tightest() {
    let a = &[("a", "")][..];
    assert!(selects("has(a) || has(b) && has(c)", a));
    assert!(!selects("(has(a) || has(b)) && has(c)", a));
    assert!(selects("!has(b) && has(a)", a));
    assert!(!selects("!(has(b) || has(a))", a));
    assert!(selects("!has(b) || has(b) && !has(a)", a));
}

#[test]
fn labels_may_look_like_keywords() {
    assert!(selects("in == 'x'", &[("in", "x")]));
    assert!(selects("all in {'x'}", &[("all", "x")]));
    assert!(selects("has not in {'y'}", &[("has", "x")]));
    assert!(selects("has(not)", &[("not", "")]));
    assert!(selects("in in {'in'}", &[("in", "in")]));
    assert!(selects("contains contains 'c'", &[("contains", "abc")]));
}

#[test]
fn quotes_have_no_escapes_and_may_hold_the_other_quote() {
    assert!(selects("a == \"it's\"", &[("a", "it's")]));
    assert!(selects("a == 'say \"x\"'", &[("a", "say \"x\"")]));
    assert!(selects("a == 'b\\'", &[("a", "b\\")]));
}

#[test]
fn what_is_not_a_selector_is_refused() {
    for bad in [
        "rack",
        "rack =",
        "rack = 'r1'",
        "rack == r1",
        "rack == 'r1",
        "rack == 'r1' &&",
        "&& has(a)",
        "has(a) has(b)",
        "has (a)",
        "all ()",
        "has()",
        "has(a",
        "(has(a)",
        "has(a))",
        "has(a)\n",
        "\nhas(a)",
        "a in 'x'",
        "a in {'x' 'y'}",
        "a in {,}",
        "a in {'x'",
        "a inx {'x'}",
        "a containsx 'x'",
        "a starts 'x'",
        "a not 'x'",
        "!",
        "é == 'x'",
        "a == 'x' | b == 'y'",
    ] {
        assert!(Selector::parse(bad).is_err(), "{bad:?}");
    }
    assert!(Selector::parse(&format!("has({})", "a".repeat(512))).is_ok());
    assert!(Selector::parse(&format!("has({})", "a".repeat(513))).is_err());
    assert!(Selector::parse(&"(".repeat(100_000)).is_err());
    assert!(Selector::parse(&format!("{}has(a)", "!".repeat(100_000))).is_ok());
}

#[test]
fn required_narrows_without_losing_anything() {
    let required = |text: &str| match Selector::parse(text).unwrap().required() {
        None => "any".to_owned(),
        Some(Required::Label(label)) => label.to_owned(),
        Some(Required::Value(label, values)) => format!("{label}={}", values.join(",")),
    };
    assert_eq!(required("rack == 'r1'"), "rack=r1");
    assert_eq!(required("has(a) && rack in {'r1','r2'}"), "rack=r1,r2");
    assert_eq!(required("has(a) && b != 'x'"), "a");
    assert_eq!(required("has(a) || rack == 'r1'"), "any");
    assert_eq!(required("!(rack == 'r1')"), "any");
    assert_eq!(required(""), "any");
}

fn label() -> impl Strategy<Value = String> {
    prop_oneof![Just("a"), Just("b"), Just("c/d.e-f_9"), Just("in"), Just("has")]
        .prop_map(str::to_owned)
}

fn value() -> impl Strategy<Value = String> {
    prop_oneof!["[xy]{0,2}", Just("it's".to_owned()), Just("\"".to_owned())]
}

fn expression() -> impl Strategy<Value = Expression> {
    let test = prop_oneof![Just(Test::Contains), Just(Test::StartsWith), Just(Test::EndsWith)];
    let leaf = prop_oneof![
        Just(Expression::All),
        label().prop_map(Expression::Has),
        (label(), test, value()).prop_map(|(label, test, value)| Expression::Text {
            label,
            test,
            value
        }),
        (label(), prop::collection::vec(value(), 0..3))
            .prop_map(|(label, values)| Expression::In { label, values }),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            inner.clone().prop_map(|e| Expression::Not(Box::new(e))),
            prop::collection::vec(inner.clone(), 2..4).prop_map(Expression::And),
            prop::collection::vec(inner, 2..4).prop_map(Expression::Or),
        ]
    })
}

proptest! {
    #[test]
    fn any_text_is_parsed_or_refused(text in "[-a-c ()!&|={}'\",\t]{0,40}") {
        let _ = Selector::parse(&text);
    }

    #[test]
    fn any_characters_are_parsed_or_refused(text in ".{0,30}") {
        let _ = Selector::parse(&text);
    }

    #[test]
    fn what_is_printed_means_the_same(
        root in expression(),
        objects in prop::collection::vec(
            prop::collection::btree_map(label(), value(), 0..4), 1..5),
    ) {
        let selector = Selector { root };
        let again = Selector::parse(&selector.to_string()).unwrap();
        for labels in objects {
            prop_assert_eq!(selector.selects(&labels), again.selects(&labels), "{}", selector);
            if selector.selects(&labels) {
                let carried = match selector.required() {
                    None => true,
                    Some(Required::Label(label)) => labels.contains_key(label),
                    Some(Required::Value(label, values)) =>
                        labels.get(label).is_some_and(|v| values.contains(v)),
                };
                prop_assert!(carried, "{} requires what a selected object lacks", selector);
            }
        }
    }
}
