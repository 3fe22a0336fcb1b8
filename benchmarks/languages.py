r"""Texts that are not English: does an English model notice them, and does a multilingual encoder read them?

The sentences are `tests/foreign.tsv`, short opinions and statements of everyday life: fifty with their sentiment in
each of eight languages, Darija in Arabic and in Latin letters among them, and fifteen in seven more. They were written
for this project, before any model had answered them.

    python benchmarks/languages.py unfamiliar --model models/quickstart --data data/quickstart
    python benchmarks/languages.py frozen --work data/languages    # SENTIMENT_NB_DATA names a folder with sst2/glue_dev.tsv

`unfamiliar`: the share of sentences that are *uncertain* for the reason that their words are new, and the share of
held-out English tweets, where each is a false alarm. `frozen`: a linear probe on each encoder, which stays as it was
pretrained, learns from English texts alone, the quickstart's sources and an eighth of their texts; the encoder
`multilingual` by `--query` also with that word before each text, as its makers trained it. Three classes; `two classes`
leaves the neutral texts and the neutral answer out. An interrupted run goes on.
"""
import argparse, json, os, shutil
from pathlib import Path
import numpy as np
import pandas as pd
from common import print_table, save, say
from sentiment_nb.core import LABELS, wilson_interval
from sentiment_nb.data import load_prepared
from sentiment_nb.encoders import resolve_encoder
from sentiment_nb.evaluation_report import predict_all
from sentiment_nb.general import QUICKSTART, prepare_general
from sentiment_nb.inference import Predictor
from sentiment_nb.training import train_linear_probe
from tokenizers import Tokenizer

SENTENCES = Path(__file__).parents[1]/'tests'/'foreign.tsv'
NAMES = dict(fr='French', de='German', es='Spanish', it='Italian', nl='Dutch', pt='Portuguese')
NAMES |= dict(ar='Arabic', ary='Darija')
NAMES |= dict(pl='Polish', tr='Turkish', sv='Swedish', id='Indonesian', zh='Chinese', ru='Russian', ja='Japanese')
MANY = 50 # Sentences of a language with enough of them for an interval
ROWS = {domain: tuple(n//8 for n in counts) for domain,counts in QUICKSTART['rows'].items()}
LESSONS = tuple(n//8 for n in QUICKSTART['lessons'])

def read_sentences():
    "language, label, text"
    return pd.read_csv(SENTENCES, sep='\t')

def share(hits):
    "Hits of a hundred, with their 95 % interval"
    n = len(hits)
    value = float(np.mean(hits))
    low,high = wilson_interval(value, n)
    return dict(n=n, value=value, low=float(low), high=float(high))

def show(s): return f"{100*s['value']:.1f} [{100*s['low']:.1f}, {100*s['high']:.1f}]"

def held_out_tweets(data, n):
    "Tweets of the test split"
    rows = load_prepared(data)['test'].to_pandas()
    if 'domain' in rows: rows = rows[rows.domain=='tweets']
    return rows.sample(min(n, len(rows)), random_state=0)

def unfamiliar(args):
    "The share of texts that an English model finds unfamiliar"
    predictor = Predictor(args.model)
    rows = read_sentences()
    predictions = predictor.predict(rows.text.tolist())
    rows['noticed'] = [p.unfamiliar and p.uncertain for p in predictions]
    tweets = predictor.predict(held_out_tweets(args.data, 2000).text.tolist())
    counts = rows.language.value_counts()
    of_eight = rows[rows.language.map(counts)==MANY]
    groups = {name: rows[rows.language==code].noticed for code,name in NAMES.items()}
    groups |= {'the eight with 50': of_eight.noticed, 'all': rows.noticed}
    groups['English tweets'] = [p.unfamiliar for p in tweets]
    shares = {name: share(hits) for name,hits in groups.items()}
    say(f"model {Path(args.model).name}, base {predictor.record.base}, engine {predictor.engine}")
    print_table([{'texts': name, 'n': s['n'], '% unfamiliar': show(s)} for name,s in shares.items()])
    missed = rows[~rows.noticed]
    for row in missed.itertuples(): say(f'  not noticed: {row.language} {row.text}')
    return dict(model=Path(args.model).name, shares=shares, missed=missed.text.tolist())

def write_query_encoder(folder):
    "The encoder `multilingual` with a tokenizer that puts `query: ` before each text"
    source = resolve_encoder('multilingual')
    shutil.copytree(source, folder, dirs_exist_ok=True)
    tokenizer = Tokenizer.from_file(str(source/'tokenizer.json'))
    prefix = tokenizer.encode('query:', add_special_tokens=False).tokens
    settings = json.loads(tokenizer.to_str())
    template = settings['post_processor']
    pieces = [{'SpecialToken': {'id': p, 'type_id': 0}} for p in prefix]
    template['single'] = [template['single'][0], *pieces, *template['single'][1:]]
    template['special_tokens'] |= {p: {'id': p, 'ids': [tokenizer.token_to_id(p)], 'tokens': [p]} for p in prefix}
    (folder/'tokenizer.json').write_text(json.dumps(settings), encoding='utf-8')
    test = Tokenizer.from_file(str(folder/'tokenizer.json')).encode('film').tokens
    if test!=['<s>', *prefix, *tokenizer.encode('film').tokens[1:]]: raise SystemExit(f'the tokenizer gives {test}')

def label_probs(predictor, texts):
    "Probabilities in the order of `LABELS`"
    order = [predictor.record.labels.index(name) for name in LABELS]
    return predict_all(predictor, list(texts))[:,order]

def judge(predictor, rows):
    "Accuracy of three and of two classes, the share of certain answers and their accuracy"
    probs = label_probs(predictor, rows.text)
    labels = np.array([LABELS.index(name) for name in rows.label])
    right = probs.argmax(1)==labels
    has_opinion = labels!=1
    right_of_two = 2*probs[has_opinion][:,[0,2]].argmax(1)==labels[has_opinion]
    certain = (probs>=predictor.threshold).sum(1)==1
    scores = {'two classes': share(right_of_two), 'certain': share(certain)}
    if not has_opinion.all(): scores['three classes'] = share(right)
    if certain.any(): scores['accuracy of certain'] = share(right[certain])
    return scores

def read_sets(data):
    "Sets of texts with their labels: each language with fifty, SST-2, held-out tweets"
    rows = read_sentences()
    counts = rows.language.value_counts()
    sets = {name: rows[rows.language==code] for code,name in NAMES.items() if counts[code]==MANY}
    phrases = pd.read_csv(Path(os.environ['SENTIMENT_NB_DATA'])/'sst2'/'glue_dev.tsv', sep='\t', quoting=3)
    polar = np.array(['negative','positive'])[phrases.label]
    sets['English: SST-2'] = pd.DataFrame({'text': phrases.sentence, 'label': polar})
    tweets = held_out_tweets(data, 1000)
    names = load_prepared(data)['test'].features['label'].names
    sets['English: tweets'] = tweets.assign(label=[names[i] for i in tweets.label])
    return sets

def frozen(args):
    "A linear probe on each encoder, trained on English"
    work = Path(args.work)
    data = work/'data'
    if not (data/'prepared.json').is_file(): prepare_general(data, ROWS, LESSONS, seed=args.seed)
    sets = read_sets(data)
    encoders = {'minilm': 'minilm', 'multilingual': 'multilingual'}
    if args.query: encoders['multilingual, query: '] = work/'query'
    scores = {}
    for name,encoder in encoders.items():
        kept = work/f'{Path(encoder).name}.json'
        if not kept.is_file():
            if encoder==work/'query': write_query_encoder(encoder)
            folder = work/f'frozen-{Path(encoder).name}'
            train_linear_probe(data, folder, encoder, max_length=64, truncation='head+tail', seed=args.seed)
            predictor = Predictor(folder)
            kept.write_text(json.dumps({kind: judge(predictor, rows) for kind,rows in sets.items()}), encoding='utf-8')
        scores[name] = json.loads(kept.read_text(encoding='utf-8'))
    for measure in ('two classes','three classes','certain','accuracy of certain'):
        lines = [{'texts': kind} | {name: show(scores[name][kind][measure]) if measure in scores[name][kind] else ''
            for name in scores} for kind in sets]
        print_table(lines, f'{measure}, % with its 95 % interval')
    return dict(rows={s: len(d) for s,d in load_prepared(data).items()}, scores=scores)

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('part', choices=['unfamiliar','frozen'])
    p.add_argument('--model', default='models/quickstart', help='of English texts')
    p.add_argument('--data', default='data/quickstart', help='prepared data of this model')
    p.add_argument('--work', default='data/languages', help='where data and probes are kept')
    p.add_argument('--query', action='store_true', help='measure the prefix "query: " as well')
    p.add_argument('--seed', type=int, default=42)
    args = p.parse_args()
    measured = {'unfamiliar': unfamiliar, 'frozen': frozen}[args.part](args)
    save('languages', args, 'torch transformers onnxruntime numpy', measured, args.part)

if __name__=='__main__': main()
