import pytest

from lora_assets.records.markdown import as_it_is


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("![x](http://evil/x.png)", r"!\[x\](http://evil/x.png)"),
        ("[press here](http://evil)", r"\[press here\](http://evil)"),
        ("<script>a</script> <!-- -->", r"\<script>a\</script> \<!-- -->"),
        ("**bold** _thin_ ~~gone~~", r"\*\*bold\*\* \_thin\_ \~\~gone\~\~"),
        ("`code` |cell|", r"\`code\` \|cell\|"),
        (r"\* &lt;", r"\\\* \&lt;"),
        ("vLLM at\n\n# http://[fe80::1]:8000", r"vLLM at # http://\[fe80::1\]:8000"),
        ("c_rate 1600 (must be <= 0.1) & a", "c_rate 1600 (must be <= 0.1) & a"),
    ],
)
def test_what_markdown_acts_upon_is_escaped_and_nothing_else(text: str, written: str) -> None:
    assert as_it_is(text) == written
