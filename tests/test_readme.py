"README.md is what index.ipynb says, short, and its commands exist."
import re
import shlex

import pytest
from readme import readme, root

from sentiment_nb.cli import parser

def test_readme_is_up_to_date():
    assert (root/'README.md').read_text(encoding='utf-8') == readme(), '`make readme` writes it anew'

def test_readme_is_short_and_its_links_lead_somewhere():
    text = readme()
    assert len(text.split()) <= 900 # as `wc -w` counts
    assert not [f for f in re.findall(r'\]\((?!https?:)([^)#]+)\)', text) if not (root/f).exists()]

def commands(text):
    "Lines of the shell blocks, without comments"
    blocks = re.findall(r'```sh\n(.*?)```', text, re.S)
    return [shlex.split(line, comments=True) for block in blocks for line in block.strip().splitlines()]

@pytest.mark.parametrize('words', commands(readme()), ids=' '.join)
def test_commands_of_the_readme_exist(words):
    "Each option of `sentiment-nb` and each target of `make`; the pages and tests run what these do"
    program = words[0].rpartition('/')[2]
    if program=='sentiment-nb': parser().parse_args(words[1:])
    if program=='make': assert re.search(rf'^{words[1]}:', (root/'Makefile').read_text(encoding='utf-8'), re.M)
    assert program in ('sentiment-nb', 'make', 'python', 'python3', 'source')
