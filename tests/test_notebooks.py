"What must hold for every chapter beyond its own cells, which `nbdev_test` runs."
import ast
import json
import os
import re
import shutil
import subprocess
import sys
from configparser import ConfigParser
from importlib.metadata import packages_distributions
from pathlib import Path

import pandas as pd
import pytest
import yaml
from execnb.nbio import read_nb
from nbdev.test import test_nb as run_nb

run_nb.__test__ = False  # nbdev's function, not a test of ours
root = Path(__file__).resolve().parents[1]
chapters = sorted((root/'nbs').glob('[0-9][0-9]*_*.ipynb'))
notebooks = chapters + sorted((root/'nbs').glob('[a-z]*.ipynb'))
modules = sorted((root/'sentiment_nb').glob('[a-z]*.py'))
light = 'core tables cleaning inference api cli'.split()
heavy = 'torch transformers datasets pandas sklearn matplotlib'.split()

def each(paths): return pytest.mark.parametrize('path', paths, ids=lambda p: p.stem)
def room(path): return path.stem.split('_', 1)[1]
def code(path): return [c.source for c in read_nb(path).cells if c.cell_type == 'code']
def parsed(source): return ast.parse(re.sub(r'^\s*[%!].*$', 'pass', source, flags=re.M))

def imports(nodes):
    "Names of the modules, and of what is taken from them, that `nodes` import; relative ones are left out"
    for n in nodes:
        if isinstance(n, ast.Import): yield from (a.name for a in n.names)
        if isinstance(n, ast.ImportFrom) and not n.level:
            yield n.module
            yield from (f'{n.module}.{a.name}' for a in n.names)

generated = ['nbs/*.ipynb', 'nbs/*.yml', 'sentiment_nb/*.py']

def snapshot(folder):
    files = [p for pattern in generated for p in folder.glob(pattern)]
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in files}

def test_nothing_left_to_regenerate(tmp_path):
    "In a copy without the modules, the notebooks are cleaned and exported: that gives back what stands here"
    for p in ['settings.ini', '_quarto.yml', 'sentiment_nb/__init__.py', *(q.relative_to(root) for q in (root/'nbs').iterdir() if q.is_file())]:
        (tmp_path/p).parent.mkdir(exist_ok=True)
        shutil.copy(root/p, tmp_path/p, follow_symlinks=False)
    todo = ('from nbdev.clean import nbdev_clean; from nbdev.doclinks import nbdev_export; '
            'from nbdev.quarto import refresh_quarto_yml; nbdev_clean(); nbdev_export(); refresh_quarto_yml()')
    subprocess.run([sys.executable, '-c', todo], cwd=tmp_path, check=True)
    have, want = snapshot(root), snapshot(tmp_path)
    stale = sorted(k for k in have.keys() | want.keys() if have.get(k) != want.get(k))
    assert not stale, f'the notebooks give other files than these; `make export` writes them: {stale}'

@each(chapters)
def test_imports_only_lower_numbers(path):
    allowed = {room(p) for p in chapters if p.name < path.name} | {room(path)}
    used = {m.split('.')[1] for s in code(path) for m in imports(ast.walk(parsed(s))) if m.startswith('sentiment_nb.')}
    rooms = {room(p) for p in chapters}
    assert not (used & rooms) - allowed

@each(notebooks)
def test_import_cells_hold_only_imports(path):
    "The docs build runs every cell that holds an import, so a plot beside one would be drawn again"
    for source in code(path):
        if 'nbdev_export()' in source or re.search(r'^#\|\s*(export|exports|exporti|exec_doc|eval:\s*false)\b', source, re.M): continue
        body = parsed(source).body
        has = any(isinstance(n, (ast.Import, ast.ImportFrom)) for b in body for n in ast.walk(b))
        assert not has or all(isinstance(b, (ast.Import, ast.ImportFrom)) for b in body), source

@each(chapters)
def test_first_and_last_cells(path):
    cells = read_nb(path).cells
    assert re.match(r'# .+\n+> .+', cells[0].source)
    exports = any(re.search(r'^#\|\s*exports?\b', s, re.M) for s in code(path))
    assert (cells[1].source.strip() == f'#| default_exp {room(path)}') == exports # a page without a module names none
    assert 'nbdev_export()' in cells[-1].source

@each(notebooks)
def test_outputs_are_stored(path):
    "A reader of the page sees what the cells gave, and no error among it, and no folder of the machine it ran on"
    cells = json.loads(path.read_text(encoding='utf-8'))['cells']
    outputs = [o for c in cells if c['cell_type'] == 'code' for o in c['outputs']]
    assert outputs or path.stem == 'index'
    assert not [o for o in outputs if o['output_type'] == 'error']
    assert not re.search(r'/(home|root|Users|tmp|work)/\w', json.dumps([{**o, 'data': {
        k: v for k, v in o.get('data', {}).items() if not k.startswith('image/')}} for o in outputs]))

def listed(contents):
    "Files of a sidebar, in order"
    for c in contents:
        if isinstance(c, str): yield c
        else: yield from listed(c['contents']) if 'contents' in c else [c['href']]

def test_sidebar_holds_every_page_and_the_chapters_in_order():
    config = yaml.safe_load((root/'_quarto.yml').read_text(encoding='utf-8'))
    pages = list(listed(config['website']['sidebar']['contents']))
    assert (root/'nbs'/'_quarto.yml').resolve() == root/'_quarto.yml'
    assert [f for f in pages if f[0].isdigit()] == [p.name for p in chapters]
    assert sorted(pages) == sorted(p.name for p in (root/'nbs').iterdir() if p.suffix in ('.ipynb', '.qmd'))

def test_light_rooms_import_nothing_heavy():
    "One after the other in one process, which is asked after each"
    rooms = [o for o in (*light, 'client') if (root/'sentiment_nb'/f'{o}.py').exists()]
    script = f"""
import importlib, sys
for room in {rooms}:
    importlib.import_module(f'sentiment_nb.{{room}}')
    print(room, *[o for o in {heavy} if o in sys.modules])
"""
    out = subprocess.run([sys.executable, '-c', script], capture_output=True, text=True, check=True, cwd=root).stdout
    assert out.splitlines()==rooms

def declared(key):
    ini = ConfigParser()
    ini.read(root/'settings.ini', encoding='utf-8')
    return {re.split(r'[\[<>=~!]', o)[0].strip('"').lower().replace('_', '-') for o in ini['DEFAULT'][key].split()}

@each(modules)
def test_imports_are_declared(path):
    "A light room needs no more than `requirements` to be imported; whatever else is imported stands in an extra"
    base = declared('requirements')
    names_of_extras = ('quickstart', 'app', 'excel', 'cloud', 'ray', 'spark')
    extras = set().union(*(declared(f'{extra}_requirements') for extra in names_of_extras))
    tree, providers = parsed(path.read_text(encoding='utf-8')), packages_distributions()
    def undeclared(nodes, requirements):
        names = {m.split('.')[0] for m in imports(nodes)} - sys.stdlib_module_names - {'sentiment_nb'}
        names -= {'compression', 'backports'} # zstd: Python's own from 3.14 on, before that of a name space
        def packages(module): return {d.lower().replace('_', '-') for d in providers.get(module, [module])}
        return sorted(n for n in names if not packages(n) & requirements)
    assert not undeclared(tree.body, base if path.stem in light else base | extras)
    assert not undeclared(ast.walk(tree), base | extras)

def test_no_large_file_is_tracked():
    "Data, weights and packages stay out of the repository; the largest page has its figures in it"
    listed_files = subprocess.run(['git', 'ls-files', '-z'], capture_output=True, text=True, cwd=root)
    if listed_files.returncode: pytest.skip('this is no checkout of git')
    paths = [root/name for name in listed_files.stdout.split('\0') if name]
    assert [p.name for p in paths if p.is_file() and p.stat().st_size>2**20]==[]

def test_no_import_silences_warnings():
    "cleanlab does when it is imported"
    script = "import warnings, sentiment_nb.eda, sentiment_nb.audit; warnings.warn('still heard')"
    done = subprocess.run([sys.executable, '-c', script], capture_output=True, text=True, check=True, cwd=root)
    assert 'still heard' in done.stderr

slow_chapters = [p for p in chapters if any(re.search(r'^#\|\s*slow\b', s, re.M) for s in code(p))]

@pytest.mark.slow
@pytest.mark.skipif('SENTIMENT_NB_DATA' not in os.environ, reason='SENTIMENT_NB_DATA names the folder with the large data sets')
@each(slow_chapters)
def test_slow_cells(path):
    "Every cell, the long ones included, from top to bottom"
    passed, _ = run_nb(path, force_flags=['slow'], basepath=root)
    assert passed

choice = re.compile(r"^(source, ?(?:encoder, ?)?rows) = .*$", re.M)
chosen = [p for p in chapters if any(choice.search(s) for s in code(p))]
others = [(p, 'imdb') for p in chosen] + [(p, 'sentiment140') for p in chosen if room(p) in ('eda','audit')]

@pytest.mark.slow
@pytest.mark.skipif('SENTIMENT_NB_DATA' not in os.environ, reason='SENTIMENT_NB_DATA names the folder with the large data sets')
@pytest.mark.parametrize('path, source', others, ids=lambda v: getattr(v, 'stem', v))
def test_chapter_on_other_texts(path, source, tmp_path):
    "The cell at the top of a chapter may be changed: 2,000 rows of another source instead of all tweets"
    run_with(path, tmp_path, source, 2000, {})

def run_with(path, folder, source, rows, columns):
    "Run a copy of a chapter whose cell at the top names another source"
    copy = shutil.copytree(root/'nbs', folder/'nbs')/path.name
    for beside in ('benchmarks','sentiment_nb'): (folder/beside).symlink_to(root/beside)
    nb = json.loads(path.read_text(encoding='utf-8'))
    def choose(m): return f"{m[1]} = {source!r}, {repr('minilm') + ', ' if 'encoder' in m[1] else ''}{rows}"
    for c in nb['cells']:
        chosen_source = choice.sub(choose, ''.join(c['source']))
        c['source'] = re.sub(r'^columns = {}', lambda m: f'columns = {columns!r}', chosen_source, flags=re.M)
    copy.write_text(json.dumps(nb), encoding='utf-8')
    passed, _ = run_nb(copy, basepath=folder)
    assert passed

STARS = {'1': 'negative', '3': 'neutral', '5': 'positive'}
COLUMNS = {'text_column': 'Review', 'label_column': 'Stars', 'labels': STARS}

def write_own(path, n):
    "A table of film reviews and tweets of three classes, in columns and labels of its own"
    from sentiment_nb.data import load_general
    ds = load_general().shuffle(seed=n).select(range(n))
    stars = [1 + 2*label for label in ds['label'][:]]
    days = [f'2024-03-{1+i%28:02} 10:00:00' if n>1000 else f'3/{1+i%28}/2024' for i in range(n)]
    table = {'Review': ds['text'][:], 'Stars': stars, 'date': days, 'user': [f'u{i%90}' for i in range(n)]}
    pd.DataFrame(table).to_csv(path, index=False, sep=';')

@pytest.mark.slow
@pytest.mark.parametrize('n', [150, 1500])
@each(chosen)
def test_chapter_on_a_table_of_ones_own(path, n, tmp_path):
    "Few rows, other names of columns and labels: every cell runs, whatever the model is worth"
    from sentiment_nb.training import quickstart_root
    write_own(tmp_path/'own.csv', n)
    try: run_with(path, tmp_path, str(tmp_path/'own.csv'), None, COLUMNS)
    finally:
        made = quickstart_root(tmp_path/'own.csv', **COLUMNS)
        shutil.rmtree(made, ignore_errors=True)
        Path(f'{made}.lock').unlink(missing_ok=True)
