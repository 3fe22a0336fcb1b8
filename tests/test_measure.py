"The measures that must hold of every chapter."
import re

import pytest
from execnb.nbio import read_nb
from measure import chapters, measure, row, together, undescribed

def each(paths): return pytest.mark.parametrize('path', paths, ids=lambda p: p.stem)

def test_the_measure_itself():
    "What it must see in a made-up cell: a missing type, a missing description; a default says a type, None does not"
    source = 'def f(\n    a, # told\n    b:int,\n    c=1, # told\n    d=None, # told\n    _e=2,\n): pass\nclass C:\n    def m(self, x): pass\nclass D(C):\n    def m(self, x): pass'
    assert list(undescribed(source)) == ['f(a) has no type', 'f(b) is not described', 'f(d) has no type', 'C.m(x) has no type', 'C.m(x) is not described']

@each(chapters)
def test_every_public_parameter_has_a_type_and_a_description(path): assert not measure(path)['undescribed']

@each(chapters[:-1])
def test_a_chapter_ends_with_a_link_to_the_next(path):
    last = [c for c in read_nb(path).cells if c.cell_type=='markdown'][-1].source
    assert re.search(rf'\]\({re.escape(chapters[chapters.index(path)+1].name)}\)', last), last

def test_sizes_of_the_whole():
    "Functions short, assertions many, an example before the next export, little skipped, over the book as a whole"
    whole = together([measure(p) for p in chapters])
    _,_,public,median,most,longest,per_public,_,shown,*_ = row(whole)
    assert int(median)<=7 and most<=20 and longest<=50
    assert float(per_public)>=2 and int(shown[:-1])>=80 and whole['skipped']<=.03*whole['code']
