from pipeline.cleaning.boilerplate import without_boilerplate


def test_gutenberg_licence_and_web_lines_go() -> None:
    text = (
        "The Project Gutenberg eBook of X\n*** START OF THE PROJECT GUTENBERG EBOOK X ***\n"
        "Chapter one. All is told here.\nClick here for more.\nThe end.\n"
        "*** END OF THE PROJECT GUTENBERG EBOOK X ***\nlicence\nlicence\n"
    )
    assert without_boilerplate(text) == ("Chapter one. All is told here.\nThe end.", 6)
    long = "He said that cookies, in his view, were of no use. " * 10
    assert without_boilerplate(long) == (long, 0)
