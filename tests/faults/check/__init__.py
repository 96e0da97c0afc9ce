"""The checker of the laws. It shares no code with the product: it reads what each participant has recorded, and nothing else.

`records` reads the files, `histories` finds out what each bus's order was, `verdict` holds the records against the laws, and
`table` prints what came of it. The laws are numbered as in `tests.core.test_laws`.
"""

LAWS = {
    1: "everyone hears, once",
    2: "one order",
    3: "kept, no offset reused",
    4: "no silent gap",
    5: "one answer",
    6: "identity",
    7: "scopes",
    8: "bounded",
    9: "closed says so",
}
