"Tables with any text in any cell come back to the letter, whoever wrote them; any other bytes are read or refused in a line."
import bz2
import csv
import json
import re
import tempfile
import warnings
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openpyxl import Workbook

from sentiment_nb.core import InputError
from sentiment_nb.data import table_batches
from sentiment_nb.tables import read_table, sniff_format, write_rows

COLUMNS = ['text', 'title', 'id']
SIGNS = '",;|\t\r\n\\\ufdd0\0\x1a\ufeff\u2028\x85 =\''
texts = st.text(st.characters(exclude_categories=['Cs']) | st.sampled_from(SIGNS), max_size=12)
tables = st.lists(st.lists(texts, min_size=3, max_size=3), min_size=1, max_size=5)

def by_csv(dialect='excel', encoding='utf-8', opened=open):
    "What Python's `csv` writes"
    def write(rows, path):
        with opened(path, 'wt', encoding=encoding, newline='') as f: csv.writer(f, dialect).writerows([COLUMNS, *rows])
    return write

def frame(rows): return pd.DataFrame(rows, columns=COLUMNS)

def by_pandas(**options):
    "What pandas writes"
    return lambda rows, path: frame(rows).to_csv(path, index=False, **options)

def by_pandas_as_json(rows, path): frame(rows).to_json(path, orient='records', lines=True)

def by_json(rows, path):
    lines = [json.dumps(dict(zip(COLUMNS, row)), ensure_ascii=False) for row in rows]
    Path(path).write_text('\n'.join(lines), encoding='utf-8', newline='')

def arrow(rows): return pa.table([list(column) for column in zip(*rows)], COLUMNS)

def by_arrow(**options):
    "What pyarrow writes as CSV"
    return lambda rows, path: pa.csv.write_csv(arrow(rows), path, pa.csv.WriteOptions(**options))

def by_arrow_packed(rows, path):
    with pa.CompressedOutputStream(str(path), 'bz2') as f: pa.csv.write_csv(arrow(rows), f)

def by_openpyxl(rows, path):
    book = Workbook()
    for row in [COLUMNS, *rows]: book.active.append(row)
    book.save(path)

def by_us(rows, path, **form): write_rows(path, COLUMNS, (dict(zip(COLUMNS, row)) for row in rows), None, **form)

def as_source(content):
    "What we write where the source is written like `content`"
    def write(rows, path):
        source = path.with_name(f'source{path.suffix}')
        source.write_text(content)
        by_us(rows, path, form=sniff_format(source))
    return write

WRITERS = { # name of the file: what writes it
    'csv.csv': by_csv(), 'sig.csv': by_csv(encoding='utf-8-sig'), 'utf16.csv': by_csv(encoding='utf-16'),
    'csv.tsv': by_csv('excel-tab'), 'unix.csv': by_csv('unix'),
    'pandas.csv': by_pandas(), 'semicolon.csv': by_pandas(sep=';'), 'pandas.tsv': by_pandas(sep='\t'),
    'pandas.csv.gz': by_pandas(), 'pandas.csv.bz2': by_pandas(), 'pandas.csv.zip': by_pandas(),
    'all.csv': by_pandas(quoting=csv.QUOTE_ALL), 'pandas.jsonl': by_pandas_as_json, 'json.jsonl': by_json,
    'arrow.csv': by_arrow(), 'arrow.tsv': by_arrow(delimiter='\t'),
    'arrow.parquet': lambda rows, path: pa.parquet.write_table(arrow(rows), path),
    'pandas.parquet': lambda rows, path: frame(rows).to_parquet(path),
    'us.csv': by_us, 'us.tsv': by_us, 'us.jsonl': by_us, 'us.parquet': by_us, 'us.xlsx': by_us,
    'us-semicolon.csv': as_source('text;n\nfine;4,5\n'), 'us-bar.csv': as_source('a|b\r\n'),
    'us-tab.tsv': as_source('a\tb\n'), 'csv.csv.bz2': by_csv(opened=bz2.open),
    'csv.tsv.bz2': by_csv('excel-tab', opened=bz2.open), 'arrow.csv.bz2': by_arrow_packed,
    'openpyxl.xlsx': by_openpyxl, 'pandas.xlsx': lambda rows, path: frame(rows).to_excel(path, index=False)}

def by_predict(path, **options):
    "Rows as `predict` reads them"
    names, rows, _ = read_table(path, **options)
    return names, [list(row.values()) for row in rows]

def by_prepare(path, **options):
    "Rows as `prepare` reads them"
    table = pa.Table.from_batches(table_batches(path, **options))
    return table.column_names, [list(row.values()) for row in table.to_pylist()]

NOT_IN_XML = re.compile('[\0-\x08\x0b-\x1f\ufffe\uffff]') # openpyxl refuses them, or XML turns them into others

def as_written(rows, name):
    "The rows that a program can write at all: openpyxl takes what begins with = for a formula, and # for an error"
    if name not in ('openpyxl.xlsx', 'pandas.xlsx'): return rows
    return [[NOT_IN_XML.sub('', text).lstrip('=#') for text in row] for row in rows]

def check(rows, name):
    "Both readers give what was written; a table with tabs may be asked about"
    rows = as_written(rows, name)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(action='ignore'):
        path = Path(folder)/name
        WRITERS[name](rows, path)
        for read in (by_predict, by_prepare):
            try: columns, again = read(path)
            except InputError as e:
                assert '.tsv' in path.suffixes and e.option=='quoting', e
                columns, again = read(path, quoting='double')
            assert columns==COLUMNS and again==rows

written = given(tables, st.sampled_from(sorted(WRITERS)))

@written
@settings(max_examples=100, deadline=None, derandomize=True)
def test_tables_come_back(rows, name): check(rows, name)

@pytest.mark.slow
@written
@settings(max_examples=2000, deadline=None)
def test_many_tables_come_back(rows, name): check(rows, name)

KINDS = '.csv', '.tsv', '.jsonl', '.txt', '.parquet', '.csv.gz', '.csv.bz2', '.zip', '.xlsx'
anything = st.binary(max_size=60) | st.text(st.sampled_from('ab",\t\r\n\\{}:é'), max_size=40).map(str.encode)

@given(anything, st.sampled_from(KINDS), st.sampled_from([None, 'utf-8', 'cp1252', 'utf-16', 'ascii']))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_other_bytes_are_read_or_refused(content, suffix, encoding):
    "Never with another error than the one that becomes a line"
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(action='ignore'):
        path = Path(folder)/f'a{suffix}'
        path.write_bytes(content)
        for read in (by_predict, lambda p, **options: list(table_batches(p, **options))):
            try: read(path, encoding=encoding)
            except InputError as e: assert '\n' not in str(e)
