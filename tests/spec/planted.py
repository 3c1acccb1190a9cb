"""Mistakes to plant in demo.yaml, each with the rule, key and words that must report it."""

from tests.spec import planted_columns, planted_rules
from tests.spec.edit import BASE

EDITS = {**planted_columns.EDITS, **planted_rules.EDITS}
BROKEN_FORM = {
    "syntax": ("name: demo\nversion: [1", "not YAML"),
    "tab": ("name: demo\nstatic:\n\tage: 1\n", "indent with spaces"),
    "character": ("name: \x00demo\n", "UTF-8"),
    "documents": (BASE + "---\nname: other\n", "one file, one cohort"),
    "empty": ("# nothing yet\n", "is empty"),
    "not_a_mapping": ("- name: demo\n", "keys and values"),
    "anchor": ("a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n", "no anchors"),
    "too_deep": ("a: " + "[" * 5000, "nested deeper"),
    "too_large": ("#" * 1_000_001, "characters"),
}
