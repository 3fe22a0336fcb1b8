"Texts of several domains, of which one knows no neutral: what `evaluate` says of each, and that a model of two classes says so."
import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from datasets import load_dataset
from sentiment_nb.cleaning import prepare_data
from sentiment_nb.core import LABELS, ModelRecord, wilson_interval, write_checksums
from sentiment_nb.data import load_prepared
from sentiment_nb.evaluation_report import evaluate_model
from sentiment_nb.inference import Predictor, describe_classes
from sentiment_nb.training import train_linear
from sklearn.metrics import accuracy_score, f1_score

NOTE = describe_classes(['negative', 'positive'])
WORDS = {'negative': 'awful broken late rude'.split(), 'neutral': 'parcel street morning number'.split(),
    'positive': 'lovely quick kind great'.split()}
FRAMES = {'shop': 'order {} of today was {} and {}', 'film': 'scene {} with that actor was {} and {}'}

def write_texts(path, n=900, seed=0):
    "Made-up texts as CSV: of the shop three classes, of films two; one label in five is drawn at random"
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(n):
        domain = ['shop', 'film'][i%2]
        classes = LABELS if domain=='shop' else ['negative', 'positive']
        meant = classes[rng.integers(len(classes))]
        label = classes[rng.integers(len(classes))] if rng.random()<.2 else meant
        words = rng.choice(WORDS[meant], 2)
        rows.append(dict(text=FRAMES[domain].format(i, *words), label=label, domain=domain))
    pd.DataFrame(rows).to_csv(path, index=False)
    return path

@pytest.fixture(scope='module')
def pair(tmp_path_factory):
    "The same texts for two classes: prepared data, and a linear model"
    home = tmp_path_factory.mktemp('pair')
    prepare_data(write_texts(home/'texts.csv'), home/'data')
    return SimpleNamespace(data=home/'data', model=train_linear(home/'data', home/'model'))

@pytest.fixture(scope='module')
def mixed(tmp_path_factory):
    "Prepared data of three classes, a linear model that knows the domains of its training texts, and its report"
    home = tmp_path_factory.mktemp('mixed')
    data = home/'data'
    prepare_data(write_texts(home/'texts.csv'), data, classes=3, sizes=(.15,.25))
    model = train_linear(data, home/'model')
    record = ModelRecord.load(model)
    record.data['domains'] = {'train': {'shop': 300, 'film': 200, 'lesson': 0}, 'test': {'shop': 1}}
    record.save(model)
    write_checksums(model)
    metrics = evaluate_model(Predictor(model), data, out=home/'report')
    return SimpleNamespace(data=data, model=model, metrics=metrics, report=home/'report')

def predictions(mixed):
    "The report's table with the domain of each text"
    table = pd.read_csv(mixed.report/'predictions.csv')
    domains = load_prepared(mixed.data)['test']['domain'][:]
    return table.assign(domain=domains)

def test_each_domain_is_scored(mixed):
    "By scikit-learn, macro F1 over the classes that the domain holds"
    table = predictions(mixed)
    assert set(mixed.metrics['domains'])=={'shop', 'film'}
    for domain,rows in table.groupby('domain'):
        scores = mixed.metrics['domains'][domain]
        classes = sorted(set(rows.label))
        assert scores['n']==len(rows) and len(classes)==(3 if domain=='shop' else 2)
        assert scores['accuracy']['value']==pytest.approx(accuracy_score(rows.label, rows.predicted))
        f1 = f1_score(rows.label, rows.predicted, labels=classes, average='macro')
        assert scores['macro_f1']['value']==pytest.approx(f1)
        for k in ('accuracy', 'macro_f1', 'two_class_accuracy', 'ece', 'certain', 'certain_accuracy'):
            assert 0<=scores[k]['low']<=scores[k]['value']<=scores[k]['high']<=1, k

def test_neutral_is_left_out_and_the_other_two_renormalised(mixed):
    "Of the whole split and of each domain"
    table = predictions(mixed)
    table = table[table.label!='neutral']
    renormalised = table.prob_positive/(table.prob_positive+table.prob_negative)
    right = (renormalised>.5)==(table.label=='positive')
    assert mixed.metrics['two_class_accuracy']['value']==pytest.approx(right.mean())
    for domain,hits in right.groupby(table.domain):
        assert mixed.metrics['domains'][domain]['two_class_accuracy']['value']==pytest.approx(hits.mean())

def test_certain_answers_are_those_that_predict_does_not_call_uncertain(mixed):
    table = predictions(mixed)
    table['certain'] = [not p.uncertain for p in Predictor(mixed.model).predict(table.text.tolist())]
    for domain,rows in table.groupby('domain'):
        scores = mixed.metrics['domains'][domain]
        share = scores['certain']
        assert share['value']==pytest.approx(rows.certain.mean())
        assert (share['low'], share['high'])==pytest.approx(wilson_interval(share['value'], len(rows)))
        certain = rows[rows.certain]
        assert scores['certain_accuracy']['value']==pytest.approx((certain.label==certain.predicted).mean())

def test_report_and_command_show_the_domains(mixed, cli):
    "A row for each, and one sentence on the training texts, which names what was never seen"
    done = cli('evaluate', mixed.model, mixed.data, '--out', 'report')
    assert done.code==0 and max(map(len, done.out.splitlines()))<=80, done.out
    sentence = ('The training texts came from shop (300), film (200); the model never saw texts of other domains, '
        'such as product reviews, news, support messages: try it on a labelled sample of them first.')
    report = (mixed.report/'report.md').read_text(encoding='utf-8')
    assert sentence in report and sentence in ' '.join(done.out.split())
    assert '### Domains' in report
    for domain,scores in mixed.metrics['domains'].items():
        accuracy = f"{100*scores['accuracy']['value']:.1f} ["
        assert any(line.startswith(f"| {domain} | {scores['n']} | {accuracy}") for line in report.splitlines())
        assert any(line.startswith(domain) and accuracy in line for line in done.out.splitlines())
    card = (mixed.model/'README.md').read_text(encoding='utf-8') # of the whole test split, so the card is replaced
    assert '### Domains' in card

def with_domains(mixed, folder, domains):
    "A copy of the data whose test split has other domains, or none"
    folder.mkdir()
    for name in ('prepared.json', 'train.parquet', 'validation.parquet'):
        (folder/name).write_bytes((mixed.data/name).read_bytes())
    test = load_dataset('parquet', data_files=str(mixed.data/'test.parquet'), split='train').remove_columns('domain')
    if domains is not None: test = test.add_column('domain', domains)
    test.to_parquet(folder/'test.parquet')
    return folder

def test_without_domains_nothing_changes(mixed, workdir):
    "No column, numbers, no values, or as many as web addresses: the other metrics are the same"
    n = mixed.metrics['n']
    columns = {'none': None, 'numbers': [i%3 for i in range(n)], 'empty': [None]*n}
    columns['addresses'] = [f'{i%40}.org' for i in range(n)]
    expected = {k: v for k,v in mixed.metrics.items() if k not in ('domains', 'data')}
    for name,domains in columns.items():
        metrics = evaluate_model(Predictor(mixed.model), with_domains(mixed, workdir/name, domains))
        metrics.pop('data')
        assert metrics==expected, name

def test_two_classes_have_no_second_accuracy(pair, cli, workdir):
    "A model of two classes is comparable as it is; its domains have the key all the same"
    done = cli('evaluate', pair.model, pair.data, '--out', 'report')
    metrics = json.loads((workdir/'report'/'metrics.json').read_text(encoding='utf-8'))
    assert 'two_class_accuracy' not in metrics and '2-class' not in done.out
    for scores in metrics['domains'].values(): assert scores['two_class_accuracy']==scores['accuracy']

# A model of two classes

def predict_file(cli, workdir, model, *options):
    (workdir/'a.csv').write_text('text\nWhere do I find the invoice?\n')
    done = cli('predict', '--model', model, '--file', 'a.csv', '--out', 'b.csv', *options)
    assert done.code==0, done
    return done

@pytest.mark.parametrize('options', [(), ('--json',)])
def test_a_file_is_read_by_a_model_of_two_classes(options, cli, pair, workdir):
    "One line on standard error, once, and standard output as it was"
    done = predict_file(cli, workdir, pair.model, *options)
    assert done.err==f'{NOTE}\n'
    assert done.out==('{"rows": 1, "out": "b.csv"}\n' if options else '1 rows written to b.csv\n')

def test_a_file_is_read_by_a_model_of_three_classes(mixed, cli, workdir):
    assert predict_file(cli, workdir, mixed.model).err==''

def test_two_lines_of_a_text_stay(cli, pair):
    done = cli('predict', '--model', pair.model, '--text', 'Where do I find the invoice?')
    assert done.err=='' and done.out.count('\n')==2
