"README.md from index.ipynb: `python tests/readme.py` writes it. (`nbdev_readme` does the same where Quarto is installed.)"
import re
from pathlib import Path

from execnb.nbio import read_nb

root = Path(__file__).resolve().parents[1]
LOCAL = r'\]\(((?!https?:)[\w/]+\.(ipynb|png)\b)' # seen from nbs/

def output(o):
    "What a cell gave, as markdown"
    data = o.get('data', {})
    if 'text/markdown' in data: return re.sub(LOCAL, r'](nbs/\1', ''.join(data['text/markdown']))
    text = ''.join(o.get('text') or data.get('text/plain', ''))
    return f'```\n{text.rstrip()}\n```'

def readme():
    "The visible cells of index.ipynb, with its links seen from the top folder"
    parts = []
    for c in read_nb(root/'nbs'/'index.ipynb').cells:
        if re.search(r'^#\| hide', c.source, re.M): continue
        if c.cell_type == 'markdown': parts.append(re.sub(LOCAL, r'](nbs/\1', c.source))
        else:
            if '#| echo: false' not in c.source: parts.append(f'```python\n{c.source.strip()}\n```')
            parts += [output(o) for o in c.outputs]
    return '<!-- Written from nbs/index.ipynb by `make readme`; edit it there. -->\n\n' + '\n\n'.join(parts) + '\n'

if __name__ == '__main__': (root/'README.md').write_text(readme(), encoding='utf-8')
