"How the chapters read, in numbers: `python tests/measure.py` prints a table, test_measure.py asserts the limits."
import ast
import io
import json
import re
import statistics
import tokenize
from dataclasses import dataclass, field, fields
from functools import cache, cached_property
from pathlib import Path

root = Path(__file__).resolve().parents[1]
chapters = sorted((root/'nbs').glob('[0-9][0-9]_*.ipynb'))
notebooks = sorted((root/'nbs').glob('*.ipynb'))
scripts = sorted((root/'tests').glob('*.py')) + sorted((root/'benchmarks').glob('*.py')) + [root/'docs'/'build.py']

MAX_LOGIC = 120 # Characters of a line, without its comment and its sentences
MAX_LINE = 160 # Characters of a line that holds neither a sentence nor a comment
MAX_TUPLES = 1.5 # Tuple assignments per 100 statements
MAX_TOKENS = 36 # Words and signs of a simple statement, 90th percentile
MAX_CELL = 60 # Lines of an export cell
MAX_ROOM = 900 # Lines of a room's export cells, without blank ones
MAX_CELLS = 140 # Cells of a chapter
VAGUE = frozenset('found known said asked there rest told result info thing data2'.split()) # Names that name nothing

DEFS = ast.FunctionDef, ast.AsyncFunctionDef
SIMPLE = (ast.Assign, ast.AugAssign, ast.AnnAssign, ast.Return, ast.Raise, ast.Assert, ast.Delete, ast.Expr,
    ast.Import, ast.ImportFrom)
CHECKS = re.compile(r'^(test_\w+|expect_fail|assert\w*)$')
TOKEN = re.compile(r'\w+|[^\w\s]')

def read_cells(path):
    "The cells of a notebook, each with its source as one string"
    cells = json.loads(path.read_text(encoding='utf-8'))['cells']
    return [c | {'source': ''.join(c['source'])} for c in cells]

def directive(source, names): return re.search(rf'^#\|\s*(?:{names})\b', source, re.M)
def without_magics(source): return re.sub(r'^\s*[%!].*$', 'pass', source, flags=re.M)
def parse(source): return ast.parse(without_magics(source))
def is_export(cell): return cell['cell_type']=='code' and directive(cell['source'], 'exports?')
def public(tree): return [n for n in tree.body if isinstance(n, (*DEFS, ast.ClassDef)) and n.name[0]!='_']

# Lines

def tokens(source): return tokenize.generate_tokens(io.StringIO(source).readline)
def is_sentence(text): return len(re.findall('[A-Za-z]{2,}', text))>=4

@dataclass
class Line:
    "A line of code: its text, how long it is without comment and sentences, and whether it holds one"
    text:str
    logic:int
    prose:bool = False

    @property
    def too_long(self): return self.logic>MAX_LOGIC or len(self.text)>MAX_LINE and not self.prose

def lines(source):
    "The lines of a cell or file, sentences and comments told apart"
    all_lines = [Line(text, len(text)) for text in source.split('\n')]
    for t in tokens(source):
        if t.type==tokenize.STRING and is_sentence(t.string) or t.type==tokenize.COMMENT:
            first, last = t.start[0], t.end[0]
            for line in all_lines[first-1:last]:
                line.prose = True
                line.logic = line.logic-len(t.string) if first==last else 0
    return all_lines

# Statements

def is_docstring(node):
    if not isinstance(node, ast.Expr) or not isinstance(node.value, ast.Constant): return False
    return isinstance(node.value.value, str)

def statements(tree): return [n for n in ast.walk(tree) if isinstance(n, ast.stmt)]

def is_tuple_assignment(node):
    "Whether unlike things are assigned in one statement; taking apart what one call returns is none"
    return (isinstance(node, ast.Assign) and any(isinstance(t, ast.Tuple) for t in node.targets)
        and isinstance(node.value, (ast.Tuple, ast.GeneratorExp)))

def segment(source_lines, node):
    "The source of a node, as `ast.get_source_segment` gives it, which splits the whole source for each; the lines are UTF-8"
    first, *more = source_lines[node.lineno-1:node.end_lineno]
    if not more: return first[node.col_offset:node.end_col_offset].decode()
    *between, last = more
    return b'\n'.join([first[node.col_offset:], *between, last[:node.end_col_offset]]).decode()

def statement_tokens(source, tree):
    "Words and signs of each simple statement"
    source_lines = source.encode().split(b'\n')
    simple = [n for n in ast.walk(tree) if isinstance(n, SIMPLE) and not is_docstring(n)]
    return [len(TOKEN.findall(segment(source_lines, n))) for n in simple]

def vague_names(tree):
    "Local names that say nothing of what they hold"
    stored = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    arguments = {n.arg for n in ast.walk(tree) if isinstance(n, ast.arg)}
    return sorted((stored | arguments) & VAGUE)

# Functions

def functions(tree):
    "Functions and methods, without those inside of functions"
    for n in tree.body:
        if isinstance(n, DEFS): yield n
        if isinstance(n, ast.ClassDef): yield from functions(n)

def function_lengths(tree): return [n.end_lineno - n.body[0].lineno + 1 for n in functions(tree)]

def methods(cls):
    "The methods of a class that a reader calls, without those whose parameters a base class names"
    return [m for m in functions(cls) if m.name=='__init__' or m.name[0]!='_' and not cls.bases]

def callables(tree):
    "What a reader calls, with its name; the parameters of endpoints are named by their route"
    for n in public(tree):
        if isinstance(n, ast.ClassDef): yield from ((f'{n.name}.{m.name}', m) for m in methods(n))
        elif not any('router.' in ast.unparse(d) for d in n.decorator_list): yield n.name, n

def has_default(arguments, parameter):
    "Whether a default says the type"
    positional = reversed([*arguments.posonlyargs, *arguments.args])
    defaults = {p.arg: d for p,d in zip(positional, reversed(arguments.defaults))}
    defaults |= {p.arg: d for p,d in zip(arguments.kwonlyargs, arguments.kw_defaults) if d}
    default = defaults.get(parameter.arg)
    return default is not None and not (isinstance(default, ast.Constant) and default.value is None)

def undescribed(source):
    "Public parameters without a type or without a docment; `self`, `cls` and what begins with `_` is not public"
    source_lines = source.split('\n')
    for name,node in callables(parse(source)):
        a = node.args
        for p in (*a.posonlyargs, *a.args, *a.kwonlyargs):
            if p.arg in ('self','cls') or p.arg[0]=='_': continue
            if not (p.annotation or has_default(a, p)): yield f'{name}({p.arg}) has no type'
            if '#' not in source_lines[p.end_lineno-1]: yield f'{name}({p.arg}) is not described'

# Lessons

def is_check(node):
    "Whether a node asserts something"
    called = isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    return isinstance(node, ast.Assert) or called and bool(CHECKS.match(node.func.id))

def count_checks(tree): return sum(map(is_check, ast.walk(tree)))

def shown_next(code_cells):
    "For each cell that exports something public: whether an example follows before the next export"
    following = [*code_cells[1:], None]
    pairs = [(c, after) for c,after in zip(code_cells, following) if is_export(c) and public(parse(c['source']))]
    return [after is not None and not is_export(after) for _,after in pairs]

# A chapter

@dataclass
class Chapter:
    "The measures of one chapter, or of several together"
    name:str
    cells:int = 0
    code:int = 0 # Code cells
    words:int = 0 # Of prose
    public:int = 0 # Functions and classes that it exports
    checks:int = 0 # Assertions
    skipped:int = 0 # Cells that the tests do not run
    statements:int = 0
    tuples:int = 0 # Tuple assignments
    lengths:list = field(default_factory=list) # Of functions, in lines
    tokens:list = field(default_factory=list) # Of simple statements
    shown:list = field(default_factory=list) # Whether an example follows each export
    undescribed:list = field(default_factory=list) # Parameters
    too_long:list = field(default_factory=list) # Lines
    large_cells:list = field(default_factory=list) # Export cells, in lines
    vague:list = field(default_factory=list) # Names
    room:int = 0 # Lines that it exports

    @property
    def tuple_rate(self): return 100*self.tuples/max(self.statements, 1)

    @cached_property
    def token_percentile(self): return percentile(self.tokens, .9)

def percentile(values, share): return sorted(values)[int(share*(len(values)-1))] if values else 0

def add_code(m, cell):
    "Add the measures of a code cell"
    source = without_magics(cell['source'])
    tree = ast.parse(source)
    m.checks += count_checks(tree)
    m.skipped += bool(directive(source, r'slow|gpu|eval:\s*false'))
    m.statements += len(statements(tree))
    m.tuples += sum(map(is_tuple_assignment, ast.walk(tree)))
    m.tokens += statement_tokens(source, tree)
    m.too_long += [line.text for line in lines(source) if line.too_long]
    m.vague += vague_names(tree)
    if is_export(cell): add_export(m, source, tree)

def add_export(m, source, tree):
    "Add what only exported code is measured by"
    n = len([line for line in source.split('\n') if line.strip()])
    m.room += n
    m.public += len(public(tree))
    m.lengths += function_lengths(tree)
    m.undescribed += undescribed(source)
    if n>MAX_CELL: m.large_cells.append(n)

@cache
def measure(path):
    "The measures of one chapter"
    cells = read_cells(path)
    code = [c for c in cells if c['cell_type']=='code' and 'nbdev_export()' not in c['source']]
    prose = [c['source'] for c in cells if c['cell_type']=='markdown']
    words = sum(len(re.findall(r'\w+', text)) for text in prose)
    m = Chapter(path.stem, len(cells), len(code), words, shown=shown_next(code))
    for cell in code: add_code(m, cell)
    return m

def measure_script(path):
    "The lines of a script, as those of a chapter"
    m = Chapter(path.stem)
    add_code(m, {'cell_type': 'code', 'source': path.read_text(encoding='utf-8')})
    return m

def together(measures):
    "Several chapters as one"
    whole = Chapter('all')
    summed = [f.name for f in fields(Chapter) if f.name!='name']
    for m in measures:
        for name in summed: setattr(whole, name, getattr(whole, name) + getattr(m, name))
    return whole

# Rooms

def module_tree(room): return parse((root/'sentiment_nb'/f'{room}.py').read_text(encoding='utf-8'))

def rooms():
    "The chapters that are modules, in their order"
    names = [p.stem.split('_', 1)[1] for p in chapters]
    return [name for name in names if (root/'sentiment_nb'/f'{name}.py').exists()]

def imported_room(node):
    "The room that an import statement names, or None"
    if isinstance(node, ast.Import):
        modules = [a.name for a in node.names if a.name.startswith('sentiment_nb.')]
        return modules[0].split('.')[1] if modules else None
    if not isinstance(node, ast.ImportFrom) or not node.module: return None
    if node.level==1: return node.module
    return node.module.split('.')[1] if node.module.startswith('sentiment_nb.') else None

def room_imports(tree): return [(imported_room(n), n) for n in ast.walk(tree) if imported_room(n)]

@cache
def import_graph():
    "For each room, the rooms that it imports, at its top or inside of functions"
    return {room: sorted({r for r,_ in room_imports(module_tree(room))} - {room}) for room in rooms()}

def private_imports(tree):
    "Private names that are taken from another room"
    names = [(room, a.name) for room,n in room_imports(tree) if isinstance(n, ast.ImportFrom) for a in n.names]
    return [f'{room}.{name}' for room,name in names if name[0]=='_' and name[1]!='_']

def is_patch(node):
    "Whether a function is a method that `@patch` adds to a class"
    return any(ast.unparse(d).startswith('patch') for d in node.decorator_list)

def defined_names(tree):
    "Public names that a module defines"
    for n in tree.body:
        if isinstance(n, (*DEFS, ast.ClassDef)) and not is_patch(n): yield n.name
        targets = n.targets if isinstance(n, ast.Assign) else [n.target] if isinstance(n, ast.AnnAssign) else []
        for t in targets: yield from (x.id for x in ast.walk(t) if isinstance(x, ast.Name))

def shared_names():
    "Public names that two rooms define, with the rooms"
    owners = {}
    for room in rooms():
        for name in set(defined_names(module_tree(room))): owners.setdefault(name, []).append(room)
    return {name: rooms for name,rooms in owners.items() if len(rooms)>1 and name[0]!='_'}

# The table

HEAD = ['chapter', 'cells', 'public', 'lines: median', 'nine in ten', 'longest', 'checks', 'checks per public', 'words per code cell',
    'example next', 'room', 'largest cell', 'lines too long', 'tuples per 100', 'tokens', 'vague']

def share(values): return f'{sum(values)/len(values):.0%}' if values else ''

def row(m):
    "What the table shows of a chapter"
    median = f'{statistics.median(m.lengths):.0f}' if m.lengths else ''
    return [m.name, m.cells, m.public, median, percentile(m.lengths, .9), max(m.lengths, default=0), m.checks,
        f'{m.checks/m.public:.1f}' if m.public else '', round(m.words/max(m.code, 1)), share(m.shown), m.room,
        max(m.large_cells, default=''), len(m.too_long), f'{m.tuple_rate:.1f}', m.token_percentile, len(m.vague)]

def print_table(rows):
    "Columns as wide as they need to be, the first to the left"
    columns = [[str(value) for value in column] for column in zip(*rows)]
    widths = [max(map(len, column)) for column in columns]
    for first,*others in zip(*columns):
        cells = [text.rjust(width) for text,width in zip(others, widths[1:])]
        print('  '.join([first.ljust(widths[0]), *cells]))

if __name__=='__main__':
    measures = [measure(p) for p in chapters]
    print_table([HEAD, *map(row, [*measures, together(measures)])])
    print()
    print_table([HEAD, *map(row, map(measure_script, scripts))])
    for m in measures:
        for line in m.undescribed + m.too_long: print(m.name, line)
