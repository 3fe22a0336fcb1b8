"The measures that must hold of every chapter, as CONTRIBUTING.md tells them."
import re
import statistics
from graphlib import TopologicalSorter

import pytest
from measure import MAX_CELLS, MAX_ROOM, MAX_TOKENS, MAX_TUPLES, chapters, notebooks, scripts
from measure import import_graph, module_tree, private_imports, rooms, shared_names
from measure import lines, measure, measure_script, parse, percentile, read_cells, together, undescribed, vague_names

def each(paths): return pytest.mark.parametrize('path', paths, ids=lambda p: p.stem)

def test_the_measure_itself():
    "What it must see in a made-up cell: a missing type, a missing description; a default says a type, None does not"
    source = """
def f(
    a, # any number
    b:int,
    c=1, # any number
    d=None, # any number
    _e=2,
): pass
class C:
    def m(self, x): pass
class D(C):
    def m(self, x): pass
"""
    assert list(undescribed(source)) == ['f(a) has no type', 'f(b) is not described', 'f(d) has no type',
        'C.m(x) has no type', 'C.m(x) is not described']

def test_lines_are_measured_without_their_sentences():
    "A long message and a long comment are prose, a long expression is not"
    expression = 'x = ' + ' + '.join(['value']*40)
    message = f"raise ValueError('{'a sentence of several words ' * 8}')"
    comment = 'x = 1 # ' + 'a remark '*20
    assert [line.too_long for line in lines('\n'.join([expression, message, comment]))] == [True, False, False]
    assert vague_names(parse('found = 1\ndef f(rest): label = 2')) == ['found', 'rest']

@each(chapters)
def test_every_public_parameter_has_a_type_and_a_description(path): assert not measure(path).undescribed

@each(notebooks)
def test_lines_and_names(path):
    "One thought a line, each with its noun"
    m = measure(path)
    assert not m.too_long and not m.vague

@each(chapters)
def test_size_of_a_chapter(path):
    m = measure(path)
    assert m.cells<=MAX_CELLS and m.room<=MAX_ROOM and not m.large_cells

@each(scripts)
def test_lines_of_scripts(path): assert not measure_script(path).too_long

@each(chapters[:-1])
def test_a_chapter_ends_with_a_link_to_the_next(path):
    last = [c for c in read_cells(path) if c['cell_type'] == 'markdown'][-1]['source']
    assert re.search(rf'\]\({re.escape(chapters[chapters.index(path)+1].name)}\)', last), last

def test_sizes_of_the_whole():
    "Over the book: functions short, statements plain, assertions many, an example before the next export, little skipped"
    m = together([measure(p) for p in chapters])
    assert statistics.median(m.lengths)<=7 and percentile(m.lengths, .9)<=20 and max(m.lengths)<=50
    assert m.tuple_rate<=MAX_TUPLES and m.token_percentile<=MAX_TOKENS
    assert m.checks/m.public>=2 and sum(m.shown)/len(m.shown)>=.8 and m.skipped<=.03*m.code

def test_imports_run_down():
    "No circle, and no room imports one that stands behind it, inside of functions either"
    graph = import_graph()
    order = rooms()
    TopologicalSorter(graph).prepare()
    arrows = [(room, other) for room,others in graph.items() for other in others]
    assert not [(room, other) for room,other in arrows if order.index(other)>order.index(room)]

def test_a_file_passes_through_tables_and_inference_without_returning():
    "`predict --file` goes from the command line to inference and from there to tables"
    graph = import_graph()
    assert 'inference' in graph['cli'] and 'tables' in graph['inference']
    assert 'cli' not in graph['inference'] and not {'inference', 'cli'} & set(graph['tables'])

def test_no_private_name_crosses_a_wall():
    private = {room: private_imports(module_tree(room)) for room in rooms()}
    private |= {p.name: private_imports(parse(p.read_text(encoding='utf-8'))) for p in scripts}
    assert not {room: names for room,names in private.items() if names}

def test_one_name_one_meaning(): assert not shared_names()

@each(notebooks)
def test_no_climb_to_the_cache(path):
    assert 'parents[1]' not in path.read_text(encoding='utf-8')
