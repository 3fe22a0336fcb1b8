"README.md is what index.ipynb says."
import re

from readme import readme, root

def test_readme_is_up_to_date():
    assert (root/'README.md').read_text(encoding='utf-8') == readme(), '`make readme` writes it anew'

def test_readme_is_short_and_its_links_lead_somewhere():
    text = readme()
    assert len(re.findall(r'\w+', re.sub(r'```.*?```', '', text, flags=re.S))) <= 900
    assert not [f for f in re.findall(r'\]\((?!https?:)([^)#]+)\)', text) if not (root/f).exists()]
