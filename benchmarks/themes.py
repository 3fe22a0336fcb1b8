r"""Do the themes that are found agree with the reasons that people gave, and how long does it take?

Method: `quality` groups the negative airline tweets by several methods, ten groups each, and compares the groups with the
reasons (V-measure: 0 by chance, 1 the same; mean of three seeds). The BERTopic-like chain is embedding, PCA, HDBSCAN; its rest
is a group of its own, or goes to the nearest group. `speed` groups and names 100,000 sentences of tweets and film reviews, in
processor seconds; embeddings are stored by content and timed by nobody here: those of the complaints stand in, with noise. `names` prints phrases and quotes of the airline's themes, to be judged by eye.

    python benchmarks/themes.py quality --model models/quickstart
    python benchmarks/themes.py speed
    python benchmarks/themes.py names
"""
import argparse
import os
import time
from pathlib import Path
import numpy as np
import pandas as pd
from common import print_table, save, say
from sklearn.cluster import HDBSCAN
from sklearn.decomposition import PCA
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics import adjusted_rand_score, v_measure_score
from sentiment_nb.core import split_words
from sentiment_nb.data import load_source
from sentiment_nb.eda import mask_text
from sentiment_nb.themes import choose_k, embed_sentences, fit_groups, group_stability, load_sentence_encoder
from sentiment_nb.themes import phrase_scores, pick_phrases, sentence_vectors, split_sentences, word_vectors

PACKAGES = 'numpy scipy pandas scikit-learn onnxruntime'
DATA = Path(os.environ.get('SENTIMENT_NB_DATA', '../shared/data'))

def read_complaints():
    "The distinct negative airline tweets, and the reason of each"
    frame = pd.read_csv(DATA/'airline'/'Tweets.csv', keep_default_na=False)
    frame = frame[frame.airline_sentiment=='negative'].drop_duplicates('text')
    return frame.text.tolist(), frame.negativereason.to_numpy()

def score(name, reasons, groupings):
    "A row of the table: means over seeds"
    named = reasons!="Can't Tell"
    def mean(measure, keep): return float(np.mean([measure(reasons[keep], g[keep]) for g in groupings]))
    row = dict(method=name, groups=int(np.mean([len(np.unique(g)) for g in groupings])))
    row |= dict(v_measure=mean(v_measure_score, named|True), adjusted_rand=mean(adjusted_rand_score, named|True))
    return row | dict(v_without_cannot_tell=mean(v_measure_score, named))

def by_kmeans(vectors, seeds=3): return [fit_groups(vectors, 10, s, 2).labels_ for s in range(seeds)]

def chain(states, size, dimensions):
    "Groups of embedding, PCA and HDBSCAN: with the rest as a group, and with the rest in the nearest groups"
    reduced = PCA(dimensions, random_state=0).fit_transform(states)
    groups = HDBSCAN(min_cluster_size=size, copy=True).fit_predict(reduced)
    centres = np.array([states[groups==g].mean(0) for g in range(groups.max()+1)])
    nearest = np.where(groups<0, (states@centres.T).argmax(1), groups)
    return groups, nearest, float((groups<0).mean())

def quality(args):
    "V-measure of each method"
    texts,reasons = read_complaints()
    tfidf = TfidfVectorizer(analyzer=split_words, min_df=5, sublinear_tf=True).fit_transform(texts)
    rows = [score('k-means on TF-IDF', reasons, by_kmeans(tfidf))]
    rows.append(score('words alone (LSA)', reasons, by_kmeans(word_vectors(texts))))
    if args.model:
        tuned = embed_sentences(load_sentence_encoder(args.model), texts)
        rows.append(score('pooled states of a sentiment model', reasons, by_kmeans(tuned-tuned.mean(0))))
        both = np.hstack([tuned-tuned.mean(0), word_vectors(texts)])
        rows.append(score('the same beside words', reasons, by_kmeans(both)))
    encoder = load_sentence_encoder(args.encoder)
    states = embed_sentences(encoder, texts)
    rows.append(score('pooled states of minilm', reasons, by_kmeans(states-states.mean(0))))
    rows.append(score('minilm beside words (this chapter)', reasons, by_kmeans(sentence_vectors(texts, encoder))))
    for size,dimensions in ((10, 5), (25, 5)):
        groups,nearest,rest_share = chain(states, size, dimensions)
        name = f'BERTopic-like, PCA {dimensions}, at least {size}'
        rows.append(score(f'{name}, rest {rest_share:.0%}', reasons, [groups]))
        rows.append(score(f'{name}, rest to the nearest', reasons, [nearest]))
    print_table(rows, f'{len(texts):,} complaints, ten reasons')
    save('themes', args, PACKAGES, dict(rows=rows), part='quality')

def read_sentences(n):
    "Sentences of Sentiment140's tweets, and of film reviews if they are too few, all different"
    path = max((DATA/'sentiment140').glob('*.csv'), key=lambda p: p.stat().st_size)
    tweets = pd.read_csv(path, header=None, encoding='latin-1')[5]
    sentences = {}
    for texts in (tweets, load_source('imdb')['train']['text']):
        for text in texts:
            sentences |= dict.fromkeys(split_sentences(text))
            if len(sentences)>=n: return list(sentences)[:n]
    return list(sentences)

def speed(args):
    "Processor seconds of each step"
    sentences = read_sentences(args.sentences)
    rng = np.random.default_rng(args.seed)
    states = embed_sentences(load_sentence_encoder(args.encoder), read_complaints()[0])
    states = np.resize(states, (len(sentences), states.shape[1]))
    states = (states + rng.normal(0, .02, states.shape)).astype(np.float32)
    states -= states.mean(0)
    steps = {}
    def clock(name, compute):
        start = time.process_time()
        value = compute()
        steps[name] = round(time.process_time()-start, 1)
        return value
    words = clock('words', lambda: word_vectors(sentences))
    vectors = np.hstack([states, words-words.mean(0)])
    k = clock('choice of k', lambda: choose_k(vectors))[0]
    groups = clock('k-means', lambda: fit_groups(vectors, k)).labels_
    clock('stability', lambda: group_stability(vectors, groups, k))
    scores = clock('phrases', lambda: phrase_scores(sentences, groups, k))
    names = [', '.join(map(mask_text, pick_phrases(scores[g]))) for g in range(k)]
    cores = len(os.sched_getaffinity(0))
    facts = dict(sentences=len(sentences), k=k, cores=cores, threads=os.environ.get('OMP_NUM_THREADS'), steps=steps)
    facts |= dict(seconds=round(sum(steps.values()), 1), names=names)
    say(f"{len(sentences):,} sentences, {k} themes: {facts['seconds']} processor seconds ({steps})")
    save('themes', args, PACKAGES, facts, part='speed')

def names(args):
    "Phrases and quotes of each theme"
    texts,reasons = read_complaints()
    encoder = load_sentence_encoder(args.encoder)
    vectors = sentence_vectors(texts, encoder)
    k,agreements = choose_k(vectors)
    model = fit_groups(vectors, k)
    under_seeds,on_halves = group_stability(vectors, model.labels_, k)
    scores = phrase_scores(texts, model.labels_, k)
    rows = []
    for g in range(k):
        reason,n = pd.Series(reasons[model.labels_==g]).value_counts().head(1).reset_index().iloc[0]
        row = dict(name=', '.join(map(mask_text, pick_phrases(scores[g]))), tweets=int((model.labels_==g).sum()))
        row |= dict(seeds=float(under_seeds[g]), halves=float(on_halves[g]), main_reason=reason)
        rows.append(row | dict(part=float(n/(model.labels_==g).sum())))
    print_table(rows, f'{len(texts):,} complaints, k = {k}')
    save('themes', args, PACKAGES, dict(rows=rows, agreement={str(n): v for n,v in agreements.items()}), part='names')

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('part', choices=('quality','speed','names'))
    p.add_argument('--model', help='an exported sentiment model, whose states are tried as well')
    p.add_argument('--encoder', default='minilm')
    p.add_argument('--sentences', type=int, default=100_000)
    p.add_argument('--seed', type=int, default=0)
    args = p.parse_args()
    dict(quality=quality, speed=speed, names=names)[args.part](args)

if __name__=='__main__': main()
