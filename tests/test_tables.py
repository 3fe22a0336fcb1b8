"Files as people have them: nothing lost, nothing guessed; each is read right by `prepare` and by `predict`, or refused by both."
import bz2
import gzip
import io
import json
import os
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from openpyxl import Workbook

SPLITS = 'train', 'validation', 'test'
NAMES = 'negative', 'positive'
ROWS = [(f'stay {i} was {word}', name) for i in range(50) for word,name in (('dull','negative'), ('lovely','positive'))]

def table(rows=ROWS, header=('text','label'), sep=',', end='\n'):
    return end.join([sep.join(map(str, r)) for r in [header, *rows]] + ['']).encode()

@pytest.fixture(scope='module')
def model(tmp_path_factory):
    "A linear model of a hundred sentences"
    from sentiment_nb.cleaning import prepare_data
    from sentiment_nb.training import train_model
    folder = tmp_path_factory.mktemp('model')
    (folder/'a.csv').write_bytes(table())
    prepare_data(folder/'a.csv', folder/'data')
    return train_model(folder/'data', 'linear', folder/'linear')

@pytest.fixture
def prepared(cli, workdir):
    "Write a file, prepare it, and return what came through, with the class of each text"
    def run(name, content, *args):
        (workdir/name).write_bytes(content)
        done = cli('prepare', name, '--out', 'out', *args)
        assert done.code==0, done.err
        def read(split): return pq.read_table(workdir/'out'/f'{split}.parquet', columns=['text','label']).to_pylist()
        rows = sum(map(read, SPLITS), [])
        classes = json.loads((workdir/'out'/'prepared.json').read_text())['classes']
        return {r['text']: classes[r['label']] for r in rows}, done
    return run

@pytest.fixture
def predicted(cli, model, workdir):
    "Write a file, predict it, and return the rows of the result"
    def run(name, content, *args):
        (workdir/name).write_bytes(content)
        done = cli('predict', '--model', model, '--file', name, '--out', 'out.jsonl', *args)
        assert done.code==0, done.err
        return [json.loads(line) for line in (workdir/'out.jsonl').read_text().splitlines()], done
    return run

@pytest.fixture
def both_refuse(refuses, model, workdir):
    "Neither `prepare` nor `predict` takes the file"
    def run(name, content, *parts):
        (workdir/name).write_bytes(content)
        refuses(['prepare', name, '--out', 'out'], *parts)
        refuses(['predict', '--model', model, '--file', name, '--out', 'out.csv'], *parts)
    return run

def opened(rows, *numbers): return [(('"' if i in numbers else '') + t, label) for i,(t,label) in enumerate(rows)]

def test_stray_marks_in_a_table_with_tabs(prepared, predicted):
    "Two texts begin with a mark that means nothing: no row between them is lost, and a warning says how they are read"
    content = table(opened(ROWS, 10, 20), sep='\t')
    texts, done = prepared('a.tsv', content)
    assert len(texts)==100 and '"stay 5 was dull' in texts and 'read as text' in done.err
    assert len(predicted('a.tsv', content)[0])==100

def test_marks_that_can_be_read_in_two_ways(both_refuse, prepared):
    "A mark opens in one row and another closes in a later one: only the user knows"
    rows = opened(ROWS, 10)
    rows[20] = (rows[20][0] + '"', rows[20][1])
    content = table(rows, sep='\t')
    both_refuse('a.tsv', content, 'line 12', 'none', '(--quoting)')
    assert len(prepared('a.tsv', content, '--quoting', 'none')[0])==100

def test_stray_marks_in_a_csv(both_refuse, prepared, predicted):
    "Text goes on behind a mark that closes: refused with the row by both, and read with the option"
    content = table([(f'"Great" is what {t}', label) for t,label in ROWS])
    both_refuse('a.csv', content, 'row 1', '(--quoting)')
    assert '"Great" is what stay 0 was dull' in prepared('a.csv', content, '--quoting', 'none')[0]
    assert predicted('a.csv', content, '--quoting', 'none')[0][0]['text']=='"Great" is what stay 0 was dull'

def test_swallowed_rows_are_told(prepared):
    "By RFC 4180 the ten rows are one field; they may be a text that somebody quoted, so it is a warning"
    rows = [(i, t, label) for i,(t,label) in enumerate(opened(ROWS, 10))]
    rows[20] = (20, rows[20][1] + '"', rows[20][2])
    _, done = prepared('a.csv', table(rows, ('id','text','label')))
    assert '11 lines that look like rows' in done.err and '--quoting none' in done.err

def test_marks_escaped_by_a_backslash(both_refuse, prepared):
    "As Spark writes them"
    rows = [(f'"she said \\"{t}\\" twice, C:\\\\x"', label) for t,label in ROWS]
    both_refuse('a.csv', table(rows), 'row 1', 'backslash', '(--quoting)')
    assert 'she said "stay 0 was dull" twice, C:\\\\x' in prepared('a.csv', table(rows), '--quoting', 'backslash')[0]

def test_a_break_inside_of_a_text(prepared, predicted):
    "pandas writes a carriage return without marks around it"
    content = table([(t.replace(' was', '\rwas'), label) for t,label in ROWS])
    assert 'stay 0\rwas dull' in prepared('a.csv', content)[0]
    assert predicted('a.csv', content)[0][0]['text']=='stay 0\rwas dull'

SURVEY = b'"Your opinion\n(be frank)";"id"\n"fine, mostly";"007"\n'
EXCEL = b'sep=;\r\ntext;id\r\nfine, mostly;007\r\n'

@pytest.mark.parametrize('content, column', [(SURVEY, 'Your opinion\n(be frank)'), (EXCEL, 'text')])
def test_headers(content, column, predicted):
    "Over two lines, and behind a line that names the delimiter"
    row, = predicted('a.csv', content, '--text-column', column)[0]
    assert row[column]=='fine, mostly' and row['id']=='007'

def test_names_of_columns(both_refuse, prepared, predicted):
    "Two of one name are refused; several without a name get one, and a lone one keeps it"
    rows = [(i, t, label, i) for i,(t,label) in enumerate(ROWS)]
    both_refuse('a.csv', table(rows, ('id','text','label','id')), "two columns called 'id'")
    assert len(prepared('a.csv', table(rows, ('','text','label','')))[0])==100
    assert {'column_1', 'column_4'}<=set(predicted('a.csv', table(rows, ('','text','label','')))[0][0])
    assert '' in predicted('a.csv', table(rows, ('','text','label','n')))[0][0]

@pytest.mark.parametrize('kind', ['parquet', 'jsonl'])
def test_two_columns_of_one_name_elsewhere(kind, both_refuse):
    "In other formats too"
    f = io.BytesIO()
    pq.write_table(pa.table([['a'], ['b'], ['c']], ['text', 'x', 'x']), f)
    json_row = b'{"text": "a", "x": 1, "x": 2}\n'
    both_refuse(f'a.{kind}', f.getvalue() if kind=='parquet' else json_row, "'x'", 'rename one')

def test_digits_behind_a_byte_order_mark(prepared, predicted):
    "Every column of a CSV is text, whatever it looks like"
    rows = [(f'{i:03}', NAMES[i%2]) for i in range(80)] + [('1e5', 'positive'), ('TRUE', 'negative')]
    content = b'\xef\xbb\xbf' + table(rows)
    assert set(prepared('a.csv', content)[0])=={t for t,_ in rows}
    for encoding in ('UTF8', 'utf-8', 'utf-8-sig', 'U8'):
        assert predicted('a.csv', content, '--encoding', encoding)[0][7]['text']=='007'

LINES = '\n'.join(json.dumps({'text': t, 'label': label}) for t,label in ROWS).encode()

def test_optional_keys(prepared, predicted, cli, model, workdir):
    "A key that the first line lacks, and one that is null for thousands of rows before it is text"
    lines = LINES.splitlines()
    lines[70] = lines[70][:-1] + b', "reply": "thanks"}'
    content = b'\n'.join(lines)
    assert len(prepared('a.jsonl', content)[0])==100
    assert predicted('a.jsonl', content)[0][70]['reply']=='thanks'
    late = [{'text': 'x', 'reply': None, 'n': 1}]*5000 + [{'text': 'x', 'reply': 'thanks', 'n': .5}]
    (workdir/'late.jsonl').write_text('\n'.join(map(json.dumps, late)))
    for out in ('out.csv', 'out.parquet'):
        assert cli('predict', '--model', model, '--file', 'late.jsonl', '--out', out).code==0
    assert pq.read_table('out.parquet')['reply'].to_pylist()[-1]=='thanks'

@pytest.mark.parametrize('kind', ['csv', 'jsonl', 'parquet'])
@pytest.mark.parametrize('out', ['out.csv', 'out.jsonl', 'out.parquet'])
def test_rows_without_a_text(kind, out, cli, model, workdir):
    "An empty answer and a count, the same from every format into every format"
    f = io.BytesIO()
    pq.write_table(pa.table({'id': [1, 2, 3], 'text': [None, 'fine', ' ']}), f)
    content = {'csv': b'id,text\n1,\n2,fine\n3, \n', 'parquet': f.getvalue(),
        'jsonl': b'{"id": 1}\n{"id": 2, "text": "fine"}\n{"id": 3, "text": " "}\n'}
    (workdir/f'a.{kind}').write_bytes(content[kind])
    done = cli('predict', '--model', model, '--file', f'a.{kind}', '--out', out)
    assert done.code==0 and 'no text in 2 of 3 rows' in done.err
    from sentiment_nb.tables import read_table
    rows = list(read_table(out)[1])
    assert [bool(r['label']) for r in rows]==[bool(r['prob_negative']) for r in rows]==[False, True, False]

def test_empty_rows_at_the_end(prepared, refuses, workdir):
    "Separators only, as spreadsheets leave them: refused with the row, or left out"
    content = table(sep=';') + b';\n;\n;\n'
    (workdir/'a.csv').write_bytes(content)
    refuses(['prepare', 'a.csv', '--out', 'out'], 'in 3 of its rows', 'row 101', '--drop-empty')
    assert len(prepared('a.csv', content, '--drop-empty')[0])==100

@pytest.mark.parametrize('format', ['parquet', 'csv'])
def test_types_that_need_another_form(format, cli, workdir):
    "Maps, lists and objects beside the text are carried as JSON, categories as texts"
    texts, labels = map(list, zip(*ROWS))
    columns = {'text': texts, 'label': pa.array(labels).dictionary_encode(), 'user': [{'city': 'x', 'tags': ['a']}]*100,
        'meta': pa.array([[('a', '1')]]*100, pa.map_(pa.string(), pa.string()))}
    pq.write_table(pa.table(columns), 'a.parquet')
    assert cli('prepare', 'a.parquet', '--format', format, '--out', 'out').code==0
    from sentiment_nb.data import load_prepared
    row = load_prepared('out')['train'][0]
    assert json.loads(row['user'])=={'city': 'x', 'tags': ['a']} and json.loads(row['meta'])=={'a': '1'}

def parquet(**columns):
    f = io.BytesIO()
    pq.write_table(pa.table(columns), f)
    return f.getvalue()

def test_values_that_no_format_holds(prepared, both_refuse, refuses, model, workdir):
    "Bytes that are no text, and a date behind the year 9999: refused in a line where they cannot be carried"
    texts, labels = map(list, zip(*ROWS))
    both_refuse('a.parquet', parquet(text=[b'\xff' + t.encode() for t in texts], label=labels), 'text')
    assert len(prepared('b.parquet', parquet(text=texts, label=labels, x=[b'\xff']*100))[0])==100
    refuses(['prepare', 'b.parquet', '--format', 'csv', '--out', 'new'], 'CSV', '(--format)')
    late = pa.array([253_402_300_800_000]*100, pa.timestamp('ms'))
    assert len(prepared('c.parquet', parquet(text=texts, label=labels, x=late))[0])==100
    refuses(['predict', '--model', model, '--file', 'c.parquet', '--out', 'out.csv'], 'c.parquet', 'leave its column out')

def with_latin1(rows):
    good = [('“Très” bien 😍 à Ávila', 'positive'), *rows]
    return table(good) + 'café trop cher,negative\n'.encode('latin-1')

def test_one_wrong_byte(prepared, predicted, refuses, workdir):
    "A UTF-8 file with one row of Latin-1 stays UTF-8; the row is named, and the damage can be seen"
    texts, done = prepared('a.csv', with_latin1(ROWS))
    assert 'caf� trop cher' in texts and '“Très” bien 😍 à Ávila' in texts and 'line 103' in done.err
    rows, done = predicted('a.csv', with_latin1(ROWS), '--encoding', 'utf-8')
    assert rows[-1]['text']=='caf� trop cher' and 'line 103' in done.err
    (workdir/'a.csv').write_bytes(table() + 'café,negative\n'.encode('latin-1'))
    refuses(['prepare', 'a.csv', '--encoding', 'utf-8', '--out', 'new'], 'line 102', '(--encoding)')

def zipped(name, content):
    f = io.BytesIO()
    with zipfile.ZipFile(f, 'w') as z: z.writestr(name, content)
    return f.getvalue()

def workbook(rows=ROWS, header=('text','label'), **sheets):
    "A workbook as openpyxl writes it, further sheets by name"
    book = Workbook()
    for row in [header, *rows]: book.active.append(row)
    for name,others in sheets.items():
        for row in others: (book[name] if name in book.sheetnames else book.create_sheet(name)).append(row)
    f = io.BytesIO()
    book.save(f)
    return f.getvalue()

DOWNLOADS = {'reviews-2023.05.zip': zipped('reviews.csv', table()), 'Archive.ZIP': zipped('Data.CSV', table()),
    'reviews.CSV.GZ': gzip.compress(table()), 'a.tsv.bz2': bz2.compress(table(sep='\t')),
    'lines.zip': zipped('a.jsonl', LINES),
    'a.2023.gz': gzip.compress(table()), 'a.ndjson': LINES, 'a.XLSX': workbook(), 'a.xlsm': workbook()}

@pytest.mark.parametrize('name', DOWNLOADS)
def test_names_of_downloads(name, prepared, predicted):
    "The last suffix says how it is packed, and what is inside says what it is"
    assert prepared(name, DOWNLOADS[name])[0]==dict(ROWS)
    assert len(predicted(name, DOWNLOADS[name])[0])==100

def test_rows_of_another_length(both_refuse):
    "With their number, whether a field lacks or is too many"
    both_refuse('a.csv', table([*ROWS[:5], ('fine',), *ROWS]), 'row 6', 'fewer fields', 'got 1')
    both_refuse('a.csv', table([*ROWS[:5], ('fine', 'positive', 'x'), *ROWS]), 'row 6', 'more fields', 'got 3')

# Labels

def labelled(values): return table([(t, values[name]) for t,name in ROWS])

def classes_of(path):
    names = ['positive', 'negative']
    features = {'text': {'dtype': 'string', '_type': 'Value'}, 'label': {'names': names, '_type': 'ClassLabel'}}
    metadata = {'huggingface': json.dumps({'info': {'features': features}})}
    columns = {'text': [t for t,_ in ROWS], 'label': [names.index(n) for _,n in ROWS]}
    pq.write_table(pa.table(columns).replace_schema_metadata(metadata), path)

def test_names_in_the_metadata_of_parquet(prepared, workdir):
    "Here 0 is positive; an example of each class in the summary shows it"
    classes_of(workdir/'own.parquet')
    content = (workdir/'own.parquet').read_bytes()
    texts, done = prepared('own.parquet', content)
    assert texts==dict(ROWS)
    line = next(line for line in done.out.splitlines() if line.startswith('negative') and 'example' in line)
    assert 'dull' in line
    turned = prepared('own.parquet', content, '--labels', 'positive=negative,negative=positive')[0]
    assert turned['stay 0 was dull']=='positive'

@pytest.mark.parametrize('ends', [(0, 2), (2, 4), (-1, 1)])
@pytest.mark.parametrize('classes', [2, 3])
def test_incomplete_scales_are_asked_for(ends, classes, refuses, cli, workdir):
    "The line that the message suggests can be pasted, with the question marks filled in"
    values = dict(zip(NAMES, ends))
    (workdir/'a.csv').write_bytes(labelled(values))
    error = refuses(['prepare', 'a.csv', '--classes', str(classes), '--out', 'out'], '--labels')
    form = error.split("--labels '")[1].split("'")[0]
    pairs = dict(pair.split('=') for pair in form.split(','))
    assert set(pairs)==set(map(str, values.values()))
    filled = [f'{number}={name}' for name,number in values.items()]
    for mapping in (filled, filled[::-1]):
        assert cli('prepare', 'a.csv', '--labels', ','.join(mapping), '--out', 'out').code==0

@pytest.mark.parametrize('mapping', ['1=negative,5=positive,1=positive', '1=negative,5=positive,1.0=positive'])
def test_a_label_with_two_meanings(mapping, refuses, workdir):
    "The last one does not win"
    (workdir/'a.csv').write_bytes(labelled({'negative': 1, 'positive': 5}))
    refuses(['prepare', 'a.csv', '--labels', mapping, '--out', 'out'], "'1'", 'once')

def test_ten_stars_are_asked_for_at_once(refuses, workdir):
    "In their order, and all of them; a column of many values is no column of labels"
    stars = [(t, i%10 + 1) for i,(t,_) in enumerate(ROWS)]
    (workdir/'a.csv').write_bytes(table(stars))
    refuses(['prepare', 'a.csv', '--out', 'out'], "--labels '1=?,2=?,3=?,4=?,5=?,6=?,7=?,8=?,9=?,10=?'")
    (workdir/'b.csv').write_bytes(table([(t, i) for i,(t,_) in enumerate(ROWS)]))
    refuses(['prepare', 'b.csv', '--out', 'out'], '100 different labels', '(--label-column)')

def test_a_label_that_is_left_out(prepared):
    "`3=` leaves the rows labelled 3 out"
    rows = [(t, {'negative': 1, 'positive': 5}[n]) for t,n in ROWS] + [(f'so so {i}', 3) for i in range(10)]
    assert prepared('a.csv', table(rows), '--labels', '1=negative,3=,5=positive')[0]==dict(ROWS)

def test_a_class_without_a_text(refuses, workdir, cli):
    "Refused by `prepare`, and by `train` for what an earlier version prepared"
    (workdir/'a.csv').write_bytes(table([(t, {'positive': 'neutral'}.get(n, n)) for t,n in ROWS]))
    refuses(['prepare', 'a.csv', '--classes', '3', '--out', 'out'], 'no positive text')
    (workdir/'b.csv').write_bytes(table())
    assert cli('prepare', 'b.csv', '--out', 'data').code==0
    train = pq.read_table('data/train.parquet')
    pq.write_table(train.filter(pa.compute.equal(train['label'], 0)), 'data/train.parquet')
    refuses(['train', 'data', '--model', 'linear', '--out', 'm'], 'no positive text')

def test_a_test_split_that_lacks_a_class(cli, workdir):
    "Its positive texts are counted as positive"
    (workdir/'own').mkdir()
    rows = [*ROWS, *((f'stay {i} was long', 'neutral') for i in range(50))]
    for split,part in (('train', rows), ('test', [(f'{t} again', n) for t,n in ROWS])):
        texts, labels = map(list, zip(*part))
        pq.write_table(pa.table({'text': texts, 'label': labels}), f'own/{split}.parquet')
    done = cli('prepare', 'own', '--classes', '3', '--out', 'out')
    assert 'negative 50, neutral 0, positive 50' in done.out
    from sentiment_nb.data import load_prepared
    splits = load_prepared('out')
    assert splits['test'].features['label']==splits['train'].features['label']

def test_a_limit_keeps_the_rare_class(cli, workdir):
    "Five of a thousand, three hundredths of which are negative"
    rows = [(f'stay {i} was lovely {i*7919}', 'positive') for i in range(970)]
    rows += [(f'stay {i} was bad {i*31}', 'negative') for i in range(30)]
    (workdir/'a.csv').write_bytes(table(rows))
    assert cli('prepare', 'a.csv', '--out', 'data').code==0
    assert cli('train', 'data', '--model', 'linear', '--limit', 5, '--out', 'm').code==0

def dated(form):
    days = [f'{2023 + i//60}-{i//5%12 + 1:02}-{i%5 + 10}' for i in range(100)]
    forms = {'iso': '{0}-{1}-{2}', 'us': '{1}/{2}/{0}'}
    rows = [(t, n, forms[form].format(*day.split('-'))) for (t,n),day in zip(ROWS, days)]
    return table(rows[::-1], ('text','label','date'))

def test_dates(cli, refuses, workdir):
    "ISO 8601 is sorted by time; what would be sorted as text is refused"
    (workdir/'us.csv').write_bytes(dated('us'))
    refuses(['prepare', 'us.csv', '--by', 'time', '--out', 'out'], "'date'", 'ISO 8601')
    (workdir/'iso.csv').write_bytes(dated('iso'))
    assert cli('prepare', 'iso.csv', '--by', 'time', '--out', 'out').code==0
    train, last = (pq.read_table(f'out/{s}.parquet')['date'].to_pylist() for s in ('train', 'test'))
    assert max(train)<min(last)

# Further doors

def test_every_command_that_suggests_an_option_has_it(cli, refuses, model, workdir):
    "Marks that mean nothing are refused by all that read a labelled table, and read with the option that they name"
    (workdir/'a.csv').write_bytes(table([(f'"Great" is what {t}', label) for t,label in ROWS]))
    commands = ['evaluate', model, 'a.csv', '--out', 'report'], ['suspects', 'a.csv', '--model', model]
    for command in commands:
        refuses(command, 'row 1', '(--quoting)')
        done = cli(*command, '--quoting', 'none')
        assert done.code==0, done.err
    refuses(['adapt', model, 'a.csv', '--out', 'm'], 'row 1', '(--quoting)')

def test_scored_tables_with_marks_that_mean_nothing(predicted, refuses, cli, workdir, model):
    "What cannot be read again says how it can be written"
    content = table([(f'"Great" is what {t}', label) for t,label in ROWS])
    (workdir/'a.csv').write_bytes(content)
    command = ['predict', '--model', model, '--file', 'a.csv', '--quoting', 'none', '--out']
    assert cli(*command, 'scored.csv').code==0
    refuses(['share', 'scored.csv'], 'row 1', '--format jsonl')
    assert cli(*command, 'scored.jsonl').code==0 and cli('share', 'scored.jsonl').code==0

# Where things go

def test_the_source_is_not_replaced(refuses, model, workdir):
    "By its own name, or by another"
    (workdir/'a.csv').write_text('text\nfine\n')
    os.link(workdir/'a.csv', workdir/'b.csv')
    for out in ('a.csv', './a.csv', 'b.csv'):
        refuses(['predict', '--model', model, '--file', 'a.csv', '--out', out], 'another --out')

def test_a_source_that_grows_while_it_is_read(workdir, monkeypatch, cli):
    "By `prepare`, which reads it once; `predict` is tried in its chapter"
    from sentiment_nb import data
    (workdir/'a.csv').write_bytes(table())
    def growing(path, **options):
        yield from batches(path, **options)
        with open(path, 'a') as f: f.write('one more,positive\n')
    batches = data.table_batches
    monkeypatch.setattr(data, 'table_batches', growing)
    done = cli('prepare', 'a.csv', '--out', 'out')
    assert done.code==2 and 'a.csv changed while it was read' in done.err and not (workdir/'out').exists()

def test_a_cache_that_cannot_be_written(refuses, workdir, monkeypatch, tmp_path_factory):
    "It is named, and not the source"
    (workdir/'a.csv').write_bytes(table())
    blocked = tmp_path_factory.mktemp('cache')/'file'
    blocked.touch()
    monkeypatch.setenv('SENTIMENT_NB_CACHE', str(blocked/'x'))
    refuses(['prepare', 'a.csv', '--out', 'out'], str(blocked), 'SENTIMENT_NB_CACHE')
    cache = tmp_path_factory.mktemp('cache')
    (cache/'arrow').touch()
    monkeypatch.setenv('SENTIMENT_NB_CACHE', str(cache))
    refuses(['prepare', 'a.csv', '--out', 'out'], str(cache), 'SENTIMENT_NB_CACHE')

def test_links_in_scripts_without_spaces():
    "The opinion behind a link stays"
    from sentiment_nb.cleaning import POLICIES, clean_text
    for policy in POLICIES:
        assert '太差了' in clean_text('看 https://t.co/abc太差了，不要买', policy)
        assert '最悪' in clean_text('見て http://a.b/c。最悪でした', policy)
        assert 'terrible' in clean_text('(see http://x.y/z),terrible service', policy)
        assert 'b_(c)' not in clean_text('www.a.org/b_(c)', policy)

def test_a_header_that_is_missing(prepared, predicted):
    "`--no-header` calls the columns by number"
    content = table(ROWS[1:], ROWS[0])
    args = '--text-column', 'column_1'
    assert prepared('a.csv', content, '--no-header', *args, '--label-column', 'column_2')[0]==dict(ROWS)
    assert len(predicted('a.csv', content, '--no-header', *args)[0])==100

# Excel

def test_a_sheet_by_name(prepared, predicted, refuses):
    "Of several the first is read, and said; another is named; a CSV has none"
    content = workbook([('x', 'y')], ('a','b'), Data=[('text','label'), *ROWS])
    texts, done = prepared('a.xlsx', content, '--sheet', 'data')
    assert texts==dict(ROWS) and 'sheets' not in done.err
    assert len(predicted('a.xlsx', content, '--sheet', 'Data')[0])==100
    refuses(['prepare', 'a.xlsx', '--out', 'new', '--sheet', 'Nowhere'], "'Sheet', 'Data'", '(--sheet)')
    content = workbook(Notes=[('x', 'y')])
    texts, done = prepared('a.xlsx', content)
    assert texts==dict(ROWS) and "'Sheet', 'Notes'" in done.err and '--sheet' in done.err

def test_a_sheet_of_a_table_without_sheets(refuses, workdir):
    (workdir/'a.csv').write_bytes(table())
    refuses(['prepare', 'a.csv', '--sheet', 'Data', '--out', 'out'], 'no sheets', '(--sheet)')

def test_what_cells_hold(predicted, model, cli, workdir):
    "Texts to the letter, numbers among texts as texts, dates as dates, errors and empty cells as nothing"
    from datetime import datetime
    rows = [('007', 1, datetime(2026, 12, 1), 'x'), (2024, 2, None, 4.5), ('a_x000D_\nb', 3)]
    rows += [('#NAME?', 4), (), ('NA', 5, None, True), ()]
    answers, done = predicted('a.xlsx', workbook(rows, ('text','n','when','mixed')))
    assert [r['text'] for r in answers]==['007', '2024', 'a\r\nb', None, None, 'NA']
    assert [r['n'] for r in answers]==[1, 2, 3, 4, None, 5] and answers[0]['when']=='2026-12-01'
    assert [r['mixed'] for r in answers]==['x', '4.5', None, None, None, 'TRUE']
    assert 'cell A5' in done.err and '#NAME?' in done.err and 'no text in 2 of 6 rows' in done.err
    command = ['predict', '--model', model, '--file', 'a.xlsx', '--out']
    for out in ('o.parquet', 'o.xlsx'): assert cli(*command, out).code==0
    assert pq.read_schema('o.parquet').field('when').type==pa.date32()

def test_texts_that_look_like_formulas(cli, model, workdir):
    "In the result they are texts, and come back as such; numbers stay numbers"
    from openpyxl import load_workbook
    texts = ['=1+1', '+1', '@a', '#N/A', '007', 'a\r\nb']
    (workdir/'a.jsonl').write_text('\n'.join(json.dumps({'text': t, 'n': 1.5}) for t in texts))
    assert cli('predict', '--model', model, '--file', 'a.jsonl', '--out', 'out.xlsx').code==0
    cells = list(load_workbook('out.xlsx').active.iter_rows(min_row=2))
    assert [(row[0].data_type, row[1].data_type, row[1].value) for row in cells]==[('s', 'n', 1.5)]*6
    from sentiment_nb.tables import read_table
    assert [r['text'] for r in read_table('out.xlsx')[1]]==texts

def test_a_formula_that_was_never_computed(both_refuse):
    "Its cell would be empty"
    both_refuse('a.xlsx', workbook([('=A1', 'positive')]), 'cell A2', 'formula')

OLD = b'\xd0\xcf\x11\xe0' # the first bytes of an .xls, and of an .xlsx with a password

@pytest.mark.parametrize('name, content, part', [('a.xlsx', b'PK', 'workbook'), ('a.xlsx', OLD, 'password'),
    ('a.xlsx', zipped('xl/workbook.xml', b'<x/>'), 'workbook'), ('a.xlsx.gz', gzip.compress(workbook()), 'unpack'),
    ('a.xlsx', workbook([], ()), 'a.xlsx'), ('a.xls', b'x', '.xlsx')])
def test_workbooks_that_cannot_be_read(name, content, part, both_refuse): both_refuse(name, content, part)

def test_a_text_longer_than_a_cell(refuses, model, workdir):
    "openpyxl would cut it"
    (workdir/'a.csv').write_text('text\nfine\n' + 'long '*8000)
    refuses(['predict', '--model', model, '--file', 'a.csv', '--out', 'out.xlsx'], 'row 2', '32,767')

def test_without_openpyxl(refuses, model, workdir, monkeypatch):
    "A line says what installs it, before anything is predicted"
    import sys
    (workdir/'a.xlsx').write_bytes(workbook())
    (workdir/'a.csv').write_bytes(table())
    monkeypatch.setitem(sys.modules, 'openpyxl', None)
    install = 'pip install "sentiment_nb[excel]"'
    refuses(['prepare', 'a.xlsx', '--out', 'out'], install)
    refuses(['predict', '--model', model, '--file', 'a.csv', '--out', 'out.xlsx'], install)

def test_a_survey_in_excel(cli, model, workdir):
    "evaluate, suspects, sample and share take workbooks, too"
    (workdir/'a.xlsx').write_bytes(workbook())
    assert cli('evaluate', model, 'a.xlsx', '--out', 'report').code==0
    assert cli('suspects', 'a.xlsx', '--model', model, '--out', 's.xlsx').code==0
    assert cli('predict', '--model', model, '--file', 'a.xlsx', '--out', 'scored.xlsx').code==0
    assert cli('sample', 'scored.xlsx', '--n', 20, '--out', 'sample.xlsx').code==0
    done = cli('share', 'scored.xlsx', '--json')
    assert done.code==0 and 'positive' in done.out

# What comes along

@pytest.mark.parametrize('out', ['out.csv', 'out.jsonl', 'out.parquet', 'out.xlsx'])
def test_columns_that_come_along(out, cli, model, workdir):
    "In every format, with a label of the table's own or without"
    from sentiment_nb.tables import read_table
    (workdir/'a.jsonl').write_text('{"id": 7, "text": "fine", "label": 5, "x": {"y": 1}}\n{"text": "dull", "label": 1}\n')
    command = ['predict', '--model', model, '--file', 'a.jsonl', '--out', out]
    new = ['label', 'confidence', 'uncertain', 'truncated', 'prob_negative', 'prob_positive']
    named = {'id': ['id', *new], 'label,text': ['label', 'text', 'predicted_label', *new[1:]], '': new}
    for columns,names in named.items():
        assert cli(*command, '--columns', columns).code==0
        assert list(next(read_table(out)[1]))==names

def test_a_column_that_is_not_there(refuses, model, workdir):
    (workdir/'a.csv').write_text('text,"one, two"\nfine,1\n')
    command = ['predict', '--model', model, '--file', 'a.csv', '--out', 'out.csv', '--columns']
    refuses([*command, 'text,user'], "'user'", "'text', 'one, two'", '(--columns)')

def test_texts_that_are_longer_than_a_model_reads(cli, tiny, workdir):
    "Their rows say so, and one line counts them; a row without a text has no answer"
    (workdir/'a.csv').write_text('text\nfine\n' + 'not bad at all '*50 + '\n""\n')
    done = cli('predict', '--model', tiny.model, '--file', 'a.csv', '--out', 'out.jsonl')
    rows = [json.loads(line) for line in (workdir/'out.jsonl').read_text().splitlines()]
    assert [row['truncated'] for row in rows]==[False, True, None]
    assert done.err.count('1 of 3 texts are longer than the model reads')==1

# The result as its input

def test_the_result_is_written_like_its_input(cli, model, workdir):
    "Delimiter, marks and decimal sign; another format is named"
    import csv
    from sentiment_nb.tables import read_table
    def result(name, content, out='out.csv', *args):
        (workdir/name).write_bytes(content)
        done = cli('predict', '--model', model, '--file', name, '--out', out, *args)
        assert done.code==0, done.err
        return (workdir/out).read_text(encoding='utf-8').splitlines()
    european = 'id;text;price\n1;"fine; really";4,50\n2;dull;3\n'.encode()
    header, first, _ = result('a.csv', european)
    assert header.startswith('id;text;price;label;confidence') and first.startswith('1;"fine; really";4,50;')
    assert ',' in first.split(';')[-1] and '.' not in first.split(';')[-1]
    done = cli('share', 'out.csv', '--json')
    assert done.code==0 and len(json.loads(done.out)['shares'])>0
    header, first, _ = result('a.csv', european, 'out.csv', '--format', 'csv')
    assert header.startswith('id,text,price,label') and '"4,50"' in first and '0.' in next(csv.reader([first]))[-1]
    assert result('a.csv', b'text|x\nfine|1.5\n')[0].startswith('text|x|label')
    assert result('a.csv', b'text\nfine\n', 'o.csv', '--format', 'semicolon')[1].count(',')==3
    spark = b'text,x\n"she said \\"no\\"",C:\\x\n'
    assert result('a.csv', spark, 'out.csv', '--quoting', 'backslash')[1].startswith('"she said \\"no\\"",C:\\x,')
    assert result('a.tsv', b'text\tx\n"Great\t1\n', 'out.tsv', '--quoting', 'none')[1].startswith('"Great\t1\t')
    assert result('a.csv', european, 'out.tsv')[0].startswith('id\ttext')
    done = cli('predict', '--model', model, '--file', 'a.csv', '--out', 'parts', '--format', 'xlsx')
    part, = (workdir/'parts').glob('*.xlsx')
    assert done.code==0 and next(read_table(part)[1])['text']=='fine; really'
    assert cli('predict', '--model', model, '--file', 'a.csv', '--out', 'joined.xlsx', '--part-rows', 1).code==0
    assert [row['text'] for row in read_table('joined.xlsx')[1]]==['fine; really', 'dull']

def test_an_unknown_format_of_the_result(refuses, model, workdir):
    (workdir/'a.csv').write_bytes(table())
    command = ['predict', '--model', model, '--file', 'a.csv', '--out', 'out.csv', '--format', 'excel']
    refuses(command, 'semicolon', '(--format)')

# Folders

def test_train_beside_test(cli, workdir, refuses):
    "Tables of any kind, with the options of a file; two for one split are refused"
    (workdir/'own').mkdir()
    (workdir/'own/train.csv').write_bytes(table(header=('body','stars'), sep=';'))
    (workdir/'own/test.csv').write_bytes(table([(f'{t} again', n) for t,n in ROWS[:10]], ('body','stars'), sep=';'))
    args = ['prepare', 'own', '--text-column', 'body', '--label-column', 'stars', '--out', 'out']
    assert cli(*args).code==0
    assert pq.read_metadata('out/test.parquet').num_rows==10
    (workdir/'own/train.tsv').write_bytes(table(sep='\t'))
    refuses(args, 'train.csv and train.tsv')
    (workdir/'own/train.tsv').unlink()
    (workdir/'own/test.csv').write_bytes(b'body;id\nx;1\n')
    refuses(args, 'test.csv', "'stars'")

@pytest.mark.parametrize('names', [('pos','neg'), ('good','bad')])
@pytest.mark.parametrize('split', ['', 'train'])
def test_a_folder_for_each_class(names, split, cli, refuses, workdir):
    "Their names are labels, as usual or mapped"
    for i,(t,label) in enumerate(ROWS):
        path = workdir/'own'/split/names[label=='negative']/f'{i}.txt'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(t)
    args = ['prepare', 'own', '--out', 'out']
    if names[0]=='good':
        refuses(args, '--labels', 'bad=?,good=?')
        args += ['--labels', 'bad=negative,good=positive']
    done = cli(*args)
    assert done.code==0, done.err
    from sentiment_nb.data import load_prepared
    rows = [r for d in load_prepared('out').values() for r in d]
    assert {r['text']: ('negative','positive')[r['label']] for r in rows}==dict(ROWS)
    empty = next((workdir/'own').rglob('*.txt'))
    empty.write_text(' ')
    refuses(args, empty.name, '--drop-empty')
    assert cli(*args, '--drop-empty').code==0
    assert json.loads((workdir/'out/prepared.json').read_text())['empty_dropped']=={'train': 1}

# What is left out, and a look before

STARS = {'negative': 1, 'positive': 5}

def test_what_is_left_out_is_counted(prepared, workdir):
    "By label and without a text: in the summary and in the record, from the cache too"
    rows = [(t, STARS[n]) for t,n in ROWS] + [(f'so so {i}', 3) for i in range(10)] + [('', 5)]*2
    for _ in range(2):
        _, done = prepared('a.csv', table(rows), '--labels', '1=negative,3=,5=positive', '--drop-empty')
        assert '2 without a text, 10 labelled 3' in done.out
        record = json.loads((workdir/'out/prepared.json').read_text())
        assert record['empty_dropped']=={'train': 2} and record['labels_dropped']=={'train': {'3': 10}}

def test_dry_run(cli, workdir):
    "Shows how a table is read, writes nothing, and ends as `prepare` would"
    rows = [(t, STARS[n]) for t,n in ROWS] + [('so so @anna', 3), ('', 3)]
    (workdir/'a.csv').write_bytes(b'sep=;\n' + table(rows, sep=';'))
    done = cli('prepare', 'a.csv', '--out', 'new/out', '--dry-run')
    assert done.code==2 and "--labels '1=?,3=?,5=?'" in done.err and done.err.count('\n')==1
    assert 'delimiter semicolon' in done.out and 'encoding utf-8' in done.out and 'quoting double' in done.out
    assert "'text', 'label'" in done.out and 'so so @user' in done.out and 'row 102' in done.out
    lines = [line.split() for line in done.out.splitlines()]
    assert ['1', '?', '50'] in [line[:3] for line in lines] and ['3', '?', '2'] in [line[:3] for line in lines]
    command = ['prepare', 'a.csv', '--out', 'new/out', '--dry-run', '--drop-empty']
    done = cli(*command, '--labels', '1=negative,3=,5=positive')
    assert done.code==0 and '1 without a text, 1 labelled 3' in done.out and 'nothing is written' in done.out
    assert [p.name for p in workdir.iterdir()]==['a.csv']
    (workdir/'a.xlsx').write_bytes(workbook(Other=[('x',)]))
    done = cli('prepare', 'a.xlsx', '--dry-run')
    assert done.code==0 and 'sheet Sheet' in done.out and done.err.count('several sheets')==1

# Styled letters

@pytest.mark.parametrize('word', ['𝐭𝐞𝐫𝐫𝐢𝐛𝐥𝐞', '𝓽𝓮𝓻𝓻𝓲𝓫𝓵𝓮', '𝓉ℯ𝓇𝓇𝒾𝒷𝓁ℯ', 'ｔｅｒｒｉｂｌｅ', '&#119853;errible'])
def test_styled_letters_are_read(word):
    "To every model the word is the word"
    from sentiment_nb.cleaning import POLICIES, clean_text
    for policy in POLICIES: assert clean_text(f'this is {word}', policy)=='this is terrible'

def test_the_quickstart_knows_a_file_by_its_content(workdir):
    "Another file under the same name is another model"
    from sentiment_nb.training import quickstart_root
    (workdir/'a.csv').write_bytes(table())
    first = quickstart_root('a.csv')
    (workdir/'a.csv').write_bytes(table(ROWS[:50]))
    assert quickstart_root('a.csv')!=first
    (workdir/'b').mkdir()
    (workdir/'b/a.csv').write_bytes(table())
    assert quickstart_root('b/a.csv')==first
