"How the chapters read, in numbers: `python tests/measure.py` prints a table. They are a mirror; test_measure.py holds to the hard ones."
import ast
import re
import statistics
from pathlib import Path

from execnb.nbio import read_nb

root = Path(__file__).resolve().parents[1]
chapters = sorted((root/'nbs').glob('[0-9][0-9]*_*.ipynb'))
DEFS = ast.FunctionDef, ast.AsyncFunctionDef
CHECKS = re.compile(r'^(test_\w+|expect_fail|assert\w*)$')

def directive(source, names): return re.search(rf'^#\|\s*(?:{names})\b', source, re.M)
def parse(source): return ast.parse(re.sub(r'^\s*[%!].*$', 'pass', source, flags=re.M))
def exported(cell): return cell.cell_type=='code' and directive(cell.source, 'exports?')
def public(tree): return [n for n in tree.body if isinstance(n, (*DEFS, ast.ClassDef)) and n.name[0]!='_']

def functions(tree):
    "Functions and methods, those inside of functions left out"
    for n in tree.body:
        if isinstance(n, DEFS): yield n
        if isinstance(n, ast.ClassDef): yield from functions(n)

def lengths(tree): return [n.end_lineno - n.body[0].lineno + 1 for n in functions(tree)]

def callables(tree):
    "What a reader calls: functions and methods, without those whose parameters a base class or a route names"
    for n in public(tree):
        if isinstance(n, ast.ClassDef): yield from ((f'{n.name}.{m.name}', m) for m in functions(n) if m.name=='__init__' or m.name[0]!='_' and not n.bases)
        elif not any('router.' in ast.unparse(d) for d in n.decorator_list): yield n.name, n

def undescribed(source):
    "Public parameters without a type or without a docment; `self`, `cls` and what begins with `_` is not public"
    lines = source.split('\n')
    for name,node in callables(parse(source)):
        a = node.args
        for p in (*a.posonlyargs, *a.args, *a.kwonlyargs):
            if p.arg in ('self','cls') or p.arg[0]=='_': continue
            if not (p.annotation or has_default(a, p)): yield f'{name}({p.arg}) has no type'
            if '#' not in lines[p.end_lineno-1]: yield f'{name}({p.arg}) is not described'

def has_default(a, p):
    "Whether a default says the type"
    given = {x.arg: d for x,d in zip(reversed([*a.posonlyargs, *a.args]), reversed(a.defaults))} | {x.arg: d for x,d in zip(a.kwonlyargs, a.kw_defaults) if d}
    return p.arg in given and not (isinstance(given[p.arg], ast.Constant) and given[p.arg].value is None)

def checks(tree): return sum(isinstance(n, ast.Assert) or isinstance(n, ast.Call) and isinstance(n.func, ast.Name) and bool(CHECKS.match(n.func.id)) for n in ast.walk(tree))

def shown_first(cells):
    "Of the cells that export something public, how many are followed by an example before the next export"
    code = [c for c in cells if c.cell_type=='code']
    at = [i for i,c in enumerate(code) if exported(c) and public(parse(c.source))]
    return [i+1<len(code) and not exported(code[i+1]) for i in at]

def measure(path):
    "The measures of one chapter"
    cells = read_nb(path).cells
    code = [c for c in cells if c.cell_type=='code' and 'nbdev_export()' not in c.source]
    module = [parse(c.source) for c in code if exported(c)]
    prose = [len(re.findall(r'\w+', c.source)) for c in cells if c.cell_type=='markdown']
    symbols = sum(len(public(t)) for t in module)
    return {'chapter': path.stem, 'cells': len(cells), 'public': symbols, 'lengths': [n for t in module for n in lengths(t)], 'checks': sum(checks(parse(c.source)) for c in code),
        'words': round(sum(prose)/max(len(code), 1)), 'shown': shown_first(cells), 'undescribed': [u for c in code if exported(c) for u in undescribed(c.source)],
        'skipped': sum(bool(directive(c.source, r'slow|gpu|eval:\s*false')) for c in code), 'code': len(code)}

def row(m):
    n,shown = sorted(m['lengths']), m['shown']
    return [m['chapter'], m['cells'], m['public'], f"{statistics.median(n):.0f}" if n else '', n[int(.9*(len(n)-1))] if n else '', n[-1] if n else '', f"{m['checks']/m['public']:.1f}" if m['public'] else m['checks'],
        m['words'], f'{sum(shown)/len(shown):.0%}' if shown else '', len(m['undescribed']), f"{m['skipped']/m['code']:.0%}"]

HEAD = ['chapter', 'cells', 'public', 'lines: median', 'nine in ten', 'longest', 'checks per public', 'words per code cell', 'example next', 'undescribed', 'skipped']

def together(found): return {'chapter': 'all', **{k: sum((m[k] for m in found), [] if isinstance(found[0][k], list) else 0) for k in found[0] if k!='chapter'}, 'words': round(statistics.mean(m['words'] for m in found))}

if __name__=='__main__':
    found = [measure(p) for p in chapters]
    rows = [HEAD, *map(row, [*found, together(found)])]
    widths = [max(len(str(r[i])) for r in rows) for i in range(len(HEAD))]
    for r in rows: print('  '.join(f'{v!s:{"<" if not i else ">"}{w}}' for i,(v,w) in enumerate(zip(r, widths))))
    for m in found:
        for u in m['undescribed']: print(m['chapter'], u)
