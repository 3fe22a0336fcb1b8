"""Which texts should one label to learn from, and does the locked test keep its promise while learning goes on beside it?

Three kinds of text that the starting model did not see, as in adapt.py: airline tweets (a MiniLM of three classes, trained on
6,000 of the embedded tweets without them), Sentiment140 and IMDb's test reviews, first and last 25 words (the two-class
quickstart, trained on tweets alone). Of 5,000 texts, 2,000 judge and 3,000 are the table that is labelled, in batches of 20.

    sentiment-nb prepare tweets --classes 3 --exclude Tweets.csv --out CACHE/tweets-no-airline
    sentiment-nb train CACHE/tweets-no-airline --model minilm --out CACHE/tweets-minilm --limit 6000 --epochs 1 \\
        --max-length 64 --batch-size 16 --learning-rate 2e-4 --freeze-layers 2
    python benchmarks/labelling.py embed --cache CACHE      # states and answers of each pool, once
    python benchmarks/labelling.py draw --cache CACHE       # strategies on each draw; goes on where it stopped
    python benchmarks/labelling.py curves --cache CACHE     # the tables
    python benchmarks/labelling.py cover --cache CACHE      # shares from the locked test; goes on where it stopped
    python benchmarks/labelling.py coverage --cache CACHE   # the table
    python benchmarks/labelling.py refit --cache CACHE      # processor seconds and memory of a batch with 50,000 texts in the pool
"""
import argparse, json, time
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
import numpy as np
from adapt import FURTHER, Pool, holm, load_pool, mean_interval, p_value, right, start_of
from common import peak_memory, print_table, save
from sentiment_nb.adapt import choose_candidate, compare_candidates, cross_validate, embed_texts, fit_ngrams, fit_probe
from sentiment_nb.adapt import make_folds, open_encoder, probe_candidate, unchanged_candidate
from sentiment_nb.core import ModelRecord, linear_logits, softmax
from sentiment_nb.ensemble import log_probs
from sentiment_nb.inference import exported_quickstart
from sentiment_nb.labelling import Labelling, choose_batch
from sentiment_nb.prevalence import draw_sample, estimate_shares, make_sample
from sentiment_nb.training import torch_logits

PACKAGES = 'torch transformers scikit-learn scipy numpy'
DOMAINS = ('airline','sentiment140','imdb')
STRATEGIES = ('random','diverse','uncertain','mixed')
SIZES = (20, 40, 60, 100, 140, 200)
CANDIDATES = ('probe','kept','ngrams') # kept: the probe or the unchanged model, as `adapt` chooses
NGRAM_SIZES = (200,)
BATCH = 20
N_TEXTS = 5000

def embed(args):
    "Keep states, log probabilities, classes and texts of each pool"
    for domain in args.domains:
        start,_ = start_of(domain, args.cache)
        texts,classes = load_pool(domain, N_TEXTS)
        states = embed_texts(open_encoder(start), texts)
        logits = log_probs(ModelRecord.load(start).to_probs(torch_logits(start, texts)))
        np.savez(args.cache/f'{domain}-start.npz', pooled=states, logits=logits, y=classes, texts=np.array(texts))

def read_lines(path):
    "Rows of JSON Lines, none where there is no file"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

def next_rows(strategy, pool, table, labelled, seed):
    "The next batch of a strategy, as the room chooses it"
    choosable = np.setdiff1d(table, labelled)
    X = pool.X[choosable]
    probs = None
    if len(labelled) and strategy in ('uncertain','mixed') and len(np.unique(pool.classes[labelled]))>1:
        probs = softmax(linear_logits(fit_probe(pool.X[labelled], pool.classes[labelled]), X))
    return choosable[choose_batch(strategy, BATCH, len(choosable), X, probs, seed)]

def scores_at(pool, labelled, further, seed, n):
    "Accuracy on further texts of what is learned from some labels, and of what `adapt` keeps; what cross-validation promised"
    y = pool.classes[labelled]
    truth = pool.classes[further]
    if len(np.unique(y))<len(pool.names) or np.bincount(y).min()<2: return {}
    X = pool.X[labelled]
    validated = cross_validate(probe_candidate(X, y), y, make_folds(y, seed=seed))
    compared = compare_candidates([unchanged_candidate(pool.logits[labelled]), validated], y)
    probe = right(linear_logits(fit_probe(X, y, validated.setting), pool.X[further]), truth)
    unchanged = right(pool.logits[further], truth)
    scores = {'probe': dict(accuracy=probe, promised=compared[1]['accuracy'])}
    scores['kept'] = dict(accuracy=probe if choose_candidate(compared)=='probe' else unchanged)
    if n not in NGRAM_SIZES: return scores
    model = fit_ngrams(pool.ngrams[labelled], y, pool.general)
    return scores | {'ngrams': dict(accuracy=right(linear_logits(model, pool.ngrams[further]), truth))}

def one_draw(pool, strategy, seed):
    "Accuracies along one labelling of 200 texts"
    order = np.random.default_rng(seed).permutation(len(pool.texts))
    further = order[-FURTHER:]
    table = np.sort(order[:-FURTHER])
    labelled = np.zeros(0, int)
    rows = []
    for step in range(max(SIZES)//BATCH):
        labelled = np.append(labelled, next_rows(strategy, pool, table, labelled, 1000*seed + step))
        n = len(labelled)
        if n not in SIZES: continue
        for name,score in scores_at(pool, labelled, further, seed, n).items():
            rows.append(dict(domain=pool.domain, strategy=strategy, seed=seed, n=n, candidate=name) | score)
    unchanged = right(pool.logits[further], pool.classes[further])
    return [row | dict(unchanged=unchanged) for row in rows]

def draw(args):
    "Append draws to a file in the cache until there are enough, or the time is up"
    path = args.cache/'labelling-draws.jsonl'
    done = {(d['domain'], d['strategy'], d['seed']) for d in read_lines(path)}
    pools = {d: Pool(d, args.cache) for d in args.domains}
    end = time.monotonic() + 60*args.minutes
    for seed,domain,strategy in product(range(args.seeds), args.domains, STRATEGIES):
        if (domain, strategy, seed) in done: continue
        if time.monotonic()>end: return
        rows = one_draw(pools[domain], strategy, seed)
        with open(path, 'a') as f: f.writelines(json.dumps(row) + '\n' for row in rows)

def accuracies(draws, **case):
    "Accuracy by seed, of the draws of a case"
    return {d['seed']: d['accuracy'] for d in draws if all(d[k]==v for k,v in case.items())}

def compare_row(draws, domain, candidate, n, strategy):
    "A strategy against random choice, seed by seed"
    ours = accuracies(draws, domain=domain, candidate=candidate, n=n, strategy=strategy)
    random = accuracies(draws, domain=domain, candidate=candidate, n=n, strategy='random')
    seeds = sorted(ours.keys() & random.keys())
    gains = [ours[s]-random[s] for s in seeds]
    row = dict(domain=domain, candidate=candidate, n=n, strategy=strategy, seeds=len(seeds))
    return row | mean_interval(gains) | dict(p_worse=p_value(gains, 'less'), p_better=p_value(gains, 'greater'))

def promise_row(draws, domain, strategy, n):
    "Whether cross-validation of the probe promised what further texts gave"
    rows = [d for d in draws if (d['domain'], d['strategy'], d['n'], d['candidate'])==(domain, strategy, n, 'probe')]
    held = sum(d['promised']['low']<=d['accuracy']<=d['promised']['high'] for d in rows)
    bias = float(np.mean([d['promised']['value']-d['accuracy'] for d in rows]))
    return dict(domain=domain, strategy=strategy, n=n, seeds=len(rows), held=held, bias=bias)

def unchanged_row(draws, domain, strategy, n=200):
    "What is kept with the labels of a strategy against the unchanged model"
    rows = [d for d in draws if (d['domain'], d['strategy'], d['n'], d['candidate'])==(domain, strategy, n, 'kept')]
    gains = [d['accuracy']-d['unchanged'] for d in rows]
    unchanged = float(np.mean([d['unchanged'] for d in rows]))
    row = dict(domain=domain, strategy=strategy, n=n, seeds=len(rows), unchanged=unchanged)
    return row | mean_interval(gains) | dict(p_better=p_value(gains, 'greater'))

def add_holm(rows, key):
    "Holm's correction over all rows"
    for row,p in zip(rows, holm([r[key] for r in rows])): row[f'{key}_holm'] = p

def curves(args):
    "Tables of the draws: curves, strategies against chance, 200 labels against the unchanged model"
    draws = read_lines(args.cache/'labelling-draws.jsonl')
    points = []
    for domain,candidate,strategy,n in product(args.domains, CANDIDATES, STRATEGIES, SIZES):
        values = [*accuracies(draws, domain=domain, candidate=candidate, n=n, strategy=strategy).values()]
        row = dict(domain=domain, candidate=candidate, strategy=strategy, n=n, seeds=len(values))
        if values: points.append(row | mean_interval(values))
    for domain in args.domains:
        values = list({d['seed']: d['unchanged'] for d in draws if d['domain']==domain}.values())
        row = dict(domain=domain, candidate='unchanged', strategy='none', n=0, seeds=len(values))
        points.append(row | mean_interval(values))
    cases = {(p['domain'], p['candidate'], p['n']) for p in points if p['n']}
    compared = [compare_row(draws, *case, strategy) for case in sorted(cases) for strategy in STRATEGIES[1:]]
    for key in ('p_worse','p_better'): add_holm(compared, key)
    gains = [unchanged_row(draws, domain, strategy) for domain in args.domains for strategy in STRATEGIES]
    add_holm(gains, 'p_better')
    print_table(points, f'accuracy on {FURTHER:,} further texts, mean over seeds')
    print_table(compared, 'strategies against random choice, difference in accuracy seed by seed')
    promises = [promise_row(draws, *case) for case in product(args.domains, STRATEGIES, (100, 200))]
    print_table(gains, 'what is kept with 200 labels against the unchanged model')
    print_table(promises, 'accuracy that cross-validation of the probe promised, and that further texts gave')
    tables = dict(points=points, compared=compared, gains=gains, promises=promises)
    save('labelling', args, PACKAGES, tables, part='curves')

def one_cover(pool, n_table, strategy, seed, n_learn=100):
    "Whether intervals of the shares hold, by labels alone, the unchanged model and the adapted one"
    rng = np.random.default_rng(seed)
    table = np.sort(rng.permutation(len(pool.texts))[:n_table])
    y = pool.classes[table]
    test,chance = draw_sample(n_table, 60, seed=seed)
    others = np.setdiff1d(np.arange(n_table), test)
    labelled = np.zeros(0, int)
    while len(labelled)<min(n_learn, len(others)-BATCH):
        labelled = np.append(labelled, next_rows(strategy, pool, table[others], labelled, seed + len(labelled)))
    learned = pool.classes[labelled]
    probs = {'labels alone': np.zeros((n_table, len(pool.names)))}
    probs['unchanged'] = softmax(pool.logits[table])
    if len(np.unique(learned))==len(pool.names):
        probs['adapted'] = softmax(linear_logits(fit_probe(pool.X[labelled], learned), pool.X[table]))
    sample = make_sample(test, y[test], n_table, chance)
    rows = []
    for model,p in probs.items():
        for k,share in enumerate(estimate_shares(p, pool.names, sample)):
            low,high = share.estimate.interval()
            true = float((y==k).mean())
            held = bool(low<=true<=high)
            error = share.estimate.share-true
            row = dict(domain=pool.domain, table=n_table, strategy=strategy, seed=seed, model=model, label=share.label)
            rows.append(row | dict(held=held, width=high-low, error=float(error)))
    return rows

def cover(args):
    "Append draws of the locked test to a file in the cache until there are enough, or the time is up"
    path = args.cache/'labelling-cover.jsonl'
    done = {(d['domain'], d['table'], d['strategy'], d['seed']) for d in read_lines(path)}
    pools = {d: Pool(d, args.cache) for d in args.domains}
    end = time.monotonic() + 60*args.minutes
    with open(path, 'a') as f:
        for seed,domain,n_table,strategy in product(range(args.draws), args.domains, (400, 3000), ('random','mixed')):
            if (domain, n_table, strategy, seed) in done: continue
            if time.monotonic()>end: return
            f.writelines(json.dumps(row) + '\n' for row in one_cover(pools[domain], n_table, strategy, seed))
            f.flush()

def coverage(args):
    "Coverage of the intervals of all shares"
    draws = read_lines(args.cache/'labelling-cover.jsonl')
    def key(d): return d['domain'], d['table'], d['strategy'], d['model']
    keys = sorted(set(map(key, draws)))
    rows = []
    for domain,n_table,strategy,model in keys:
        group = [d for d in draws if key(d)==(domain, n_table, strategy, model)]
        of_labels = {label: [d for d in group if d['label']==label] for label in {d['label'] for d in group}}
        held = {label: float(np.mean([d['held'] for d in ds])) for label,ds in of_labels.items()}
        row = dict(domain=domain, table=n_table, strategy=strategy, model=model, draws=len(of_labels['negative']))
        row |= dict(coverage=float(np.mean([d['held'] for d in group])), lowest=min(held.values()))
        bias = float(np.mean([d['error'] for d in of_labels['negative']]))
        rows.append(row | dict(width=float(np.mean([d['width'] for d in group])), bias=bias))
    print_table(rows, 'shares from a locked test of 60 texts, 100 labels learned beside it; coverage of 95 % intervals over all classes')
    save('labelling', args, PACKAGES, dict(rows=rows), part='coverage')

def refit(args):
    "Processor seconds of a batch with a large pool, whose states are in the cache, and the memory of the process"
    pool = Pool('sentiment140', args.cache)
    rng = np.random.default_rng(0)
    base = pool.X.astype(np.float32)
    n = args.pool
    drawn = rng.integers(0, len(base), n)
    before = peak_memory()
    with TemporaryDirectory() as folder:
        texts = [f'{pool.texts[i]} {k}' for k,i in enumerate(drawn)]
        start = time.process_time()
        session = Labelling(texts, f'{folder}/labels.csv', labels=['negative','positive'], strategy='mixed', n_test=0,
            model=exported_quickstart())
        opened = time.process_time()-start
        session.embed = lambda positions, on_progress=None: base[drawn[positions]] # the encoder is not what is measured
        session._pool_X = session.embed(session._pool)
        rows = []
        for _ in range(args.batches):
            start = time.process_time()
            session.next_batch()
            chosen = time.process_time()-start
            start = time.process_time()
            while item := session.next_text(): session.give(pool.names[pool.classes[drawn[item.row-1]]], item)
            given = (time.process_time()-start)/20
            start = time.process_time()
            session.learn(general=start_of('sentiment140', args.cache)[1])
            learned = time.process_time()-start
            rows.append(dict(labels=session.progress().n_learn, choose=chosen, give=given, learn=learned))
    print_table(rows, f'processor seconds with {n:,} texts in the pool: choosing a batch (refit included), giving a label, cross-validating')
    gib = (peak_memory()-before)/2**30
    print_table([dict(pool=n, open_s=opened, more_memory_gib=gib, states_mib=session._pool_X.nbytes/2**20)])
    facts = dict(pool=n, rows=rows, open_s=opened, more_memory_gib=gib, states_mib=session._pool_X.nbytes/2**20)
    save('labelling', args, PACKAGES, facts, part='refit')

def main():
    parts = dict(embed=embed, draw=draw, curves=curves, cover=cover, coverage=coverage, refit=refit)
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('part', choices=tuple(parts))
    p.add_argument('--cache', type=Path, required=True, help='folder for starting models, states and draws; not that of adapt.py')
    p.add_argument('--domains', nargs='+', default=list(DOMAINS))
    p.add_argument('--seeds', type=int, default=20)
    p.add_argument('--draws', type=int, default=1000)
    p.add_argument('--minutes', type=float, default=9)
    p.add_argument('--pool', type=int, default=50_000)
    p.add_argument('--batches', type=int, default=10)
    p.add_argument('--seed', type=int, default=0)
    args = p.parse_args()
    parts[args.part](args)

if __name__=='__main__': main()
