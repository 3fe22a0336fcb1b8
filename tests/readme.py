"README.md from index.ipynb: `python tests/readme.py` writes it. (`nbdev_readme` does the same where Quarto is installed.)"
import json
import re
from pathlib import Path

root = Path(__file__).resolve().parents[1]
LOCAL = r'\]\(((?!https?:)[\w/]+\.(ipynb|png)\b)' # seen from nbs/

def outputs(cell):
    "What a cell gave, as markdown"
    for o in cell['outputs']:
        data = o.get('data', {})
        if 'text/markdown' in data: yield re.sub(LOCAL, r'](nbs/\1', ''.join(data['text/markdown']))
        else: yield f"```\n{''.join(o.get('text') or data.get('text/plain', '')).rstrip()}\n```"

def blocks(cells):
    "Each visible piece; code without an output stands in one block with the code after it"
    code = []
    for c in cells:
        source = ''.join(c['source'])
        if re.search(r'^#\| hide', source, re.M): continue
        if c['cell_type']=='markdown':
            yield re.sub(LOCAL, r'](nbs/\1', source)
            continue
        if '#| echo: false' not in source: code.append(source.strip())
        if code and c['outputs']:
            yield '```python\n' + '\n'.join(code) + '\n```'
            code.clear()
        yield from outputs(c)

def readme():
    "The visible cells of index.ipynb, with its links seen from the top folder"
    cells = json.loads((root/'nbs'/'index.ipynb').read_text(encoding='utf-8'))['cells']
    return '<!-- Written from nbs/index.ipynb by `make readme`; edit it there. -->\n\n' + '\n\n'.join(blocks(cells)) + '\n'

if __name__ == '__main__': (root/'README.md').write_text(readme(), encoding='utf-8')
