"""How many texts per second does each cleaning policy clean, and does a hostile megabyte stay under a second?

Method: 5,000 embedded tweets and, where SENTIMENT_NB_DATA holds IMDb, 1,000 reviews, by both policies and by the
recipe that tutorials give (BeautifulSoup, three substitutions, `emoji.demojize`, NFC, white space), taking turns,
medians. Then strings of one repeated piece, cut to 1,000,000 bytes of UTF-8: seconds for each policy and the slowest
rule; what takes a quarter of the bound is timed again, and the median counts. Each piece runs in a process of its own
that is ended after a limit, for a pattern that tries again from every position would take hours. Cleaning uses one
core, so seconds here are of its CPU time: what other processes take is not counted.

    SENTIMENT_NB_DATA=FOLDER python benchmarks/cleaning.py
"""
import argparse, multiprocessing, re, statistics, time, unicodedata, warnings
from functools import partial
import emoji
from bs4 import BeautifulSoup
from common import print_table, save, spread
from sentiment_nb.cleaning import POLICIES, clean_text

BOUND = 1. # Seconds
SIZE = 1_000_000 # Bytes of UTF-8
# Those of the chapter Cleaning
PIECES = ['&', 'amp;', '#38;', 'lt;', '<', '>', 'b', '/', '@', '@@', 'a', 'www.', 'http://', 'x', ' ', "'", '’',
    '\u200d', '\ufe0f', '❤', '👍', '🏽', '🇫', '🇷', '1', '\u20e3', 'e', '\u0301', 'ﬁ', 'İ', 'ß', 'ſ', '\x00',
    '\ud83d', ';', '&amp;lt;', '<br', '!--', '-->', 'ooo', 'O', '.', '_', '#', '゛', '\u200b']
WORSE = ['\n', '<a', '<a ', '<a>', '</a>', '<!--', '<!-- -->', '<a<1>', '&amp;', '&amp', '&#38;', '&#x26;',
    '&lt;a&gt;', '&lt;', '&notin', '&CounterClockwiseContourIntegral;', '@a', 'ab@', '@a ', 'www.a ',
    'http://a ', 'https', 'hhttp', "a'", "'a", '❤\ufe0f', '❤\u200d', '👩\u200d', '👨\u200d👩\u200d👧\u200d👦', '👍🏽',
    '🇫🇷', '1\ufe0f\u20e3', '1\ufe0f', '😀', 'e\u0316\u0301', 'e\u0301\u0316', 'e' + '\u0316\u0301'*16,
    '\u0301\u0316', '\u0344', 'a.', '\ufdfa', '\u0e48', '\u1100\u1161\u11a8', '가', '\u202eا', '\u0dcf',
    '\U0001d15e', '゙', 'क\u094d\u200d', '\ue000', '\U000e0061', '🏴\U000e0067', 'ABC ', 'Σ', 'ΑΣ', '漢', '\u2028',
    '\u00a0', '\t', '!', '?!', ':)', '0', 'é', 'i\u0307', '\u0345', '\ud83d\ude00']
# Not one piece repeated
ELONGATION = ['a' + '\u0316\u0301'*500_000, '<'*300_000 + 'a'*400_000 + '>'*300_000, '<a ' + 'b'*999_000,
    '&' + 'amp;'*250_000, '&#' + '1'*999_000, '&#x' + '1'*999_000, '@' + 'a'*999_000, 'www.' + 'a'*999_000,
    '<!--' + 'a-'*499_000, '<a'*400_000 + '<1>', 'a'*999_000 + '>', '"'*500_000 + "'"*500_000,
    '&' + 'a'*999_000]

def recipe(text):
    "The steps of `minimal`, as tutorials write them"
    text = BeautifulSoup(text, 'html.parser').get_text(' ')
    text = re.sub(r'(?:https?://|www\.)\S+', 'http', text)
    text = re.sub(r'@\w+', '@user', text)
    text = unicodedata.normalize('NFC', emoji.demojize(text, delimiters=(' ', ' ')))
    return re.sub(r'\s+', ' ', text).strip()

def real_texts():
    "5,000 tweets and, where they are at hand, 1,000 reviews"
    from sentiment_nb.data import find_local, load_source
    texts = {'5,000 tweets': load_source('tweets')['train'].shuffle(seed=0)['text'][:5000]}
    if find_local('imdb'): texts['1,000 reviews'] = load_source('imdb')['test'].shuffle(seed=0)['text'][:1000]
    return texts

def rates(repeat):
    "Texts per second of each way, taking turns"
    ways = {p: partial(clean_text, policy=p) for p in POLICIES} | {'recipe': recipe}
    rows = []
    for name,texts in real_texts().items():
        times = {w: [] for w in ways}
        for _ in range(repeat):
            for w,f in ways.items():
                start = time.process_time()
                for t in texts: f(t)
                times[w].append(time.process_time()-start)
        megabytes = sum(len(t.encode()) for t in texts)/1e6
        for w,ts in times.items():
            rows.append(dict(texts=name, way=w, texts_per_s=spread([len(texts)/s for s in ts], 0),
                mb_per_s=spread([megabytes/s for s in ts], 2)))
    return rows

def megabyte(piece):
    "Whole pieces, up to SIZE bytes; a longer string is cut"
    n = len(piece.encode('utf-8', 'surrogatepass'))
    return piece*(SIZE//n) if n<=SIZE//2 else piece.encode()[:SIZE].decode('utf-8', 'ignore')

def time_rules(text, repeat, pipe):
    "Seconds of every rule of every policy"
    for policy,rules in POLICIES.items():
        for _ in range(repeat):
            t = text
            before = time.process_time()
            for i,rule in enumerate(rules):
                start = time.process_time()
                try: t = rule(t)
                except Exception as e: pipe.send((policy, f'{type(e).__name__} in {rule.__name__}', 0.))
                pipe.send((policy, f"{i+1} {rule.__name__.strip('_')}", time.process_time()-start))
            if time.process_time()-before < BOUND/4: break
    pipe.close()

def in_process(text, repeat, limit):
    "The same, ended after `limit` seconds of silence; what is missing was too slow"
    ours,theirs = multiprocessing.Pipe(False)
    p = multiprocessing.Process(target=time_rules, args=(text, repeat, theirs))
    p.start()
    theirs.close()
    times = {n: {} for n in POLICIES}
    try:
        while ours.poll(limit):
            policy,rule,seconds = ours.recv()
            times[policy].setdefault(rule, []).append(seconds)
    except EOFError: pass
    p.kill()
    p.join()
    return times

def shorten(piece):
    "A piece in ASCII, at most 39 signs"
    name = ascii(piece)[1:-1]
    return name if len(name)<40 else name[:38] + '…'

def hostile(repeat, limit, sources):
    "One row per string: seconds by policy, and the slowest rule"
    rows = []
    for piece in sources:
        row = {'piece': shorten(piece)}
        for policy,rules in in_process(megabyte(piece), repeat, limit).items():
            errors = [r for r in rules if ' in ' in r]
            passes = [sum(p) for p in zip(*(s for r,s in rules.items() if r not in errors))]
            whole = len(rules)-len(errors)==len(POLICIES[policy]) and not errors
            row[policy] = round(statistics.median(passes), 3) if whole else float('inf')
            medians = {r: statistics.median(s) for r,s in rules.items()}
            slow = max(medians, key=medians.get)
            slowest = f'{slow} {medians[slow]:.2f}' if whole else 'not finished'
            row[f'{policy}_rule'] = errors[0] if errors else slowest
        rows.append(row)
    return rows

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--repeat', type=int, default=5, help='of the real texts')
    p.add_argument('--hostile-repeat', type=int, default=3)
    p.add_argument('--limit', type=float, default=20., help='seconds for one rule on one hostile string')
    p.add_argument('--part', choices=['real', 'hostile'], help='only this part; the other stays as it was')
    p.add_argument('--all', action='store_true', help='print every hostile string instead of the twelve slowest')
    args = p.parse_args()
    warnings.filterwarnings('ignore', module='bs4') # "this looks like a file name"
    if args.part!='hostile':
        rows = rates(args.repeat)
        print_table(rows, 'Real texts')
        save('cleaning', args, 'regex emoji beautifulsoup4', dict(results=rows), part='real')
    if args.part!='real':
        rows = hostile(args.hostile_repeat, args.limit, dict.fromkeys(PIECES + WORSE + ELONGATION))
        rows.sort(key=lambda r: -max(r[n] for n in POLICIES))
        slow = [r for r in rows if max(r[n] for n in POLICIES)>=BOUND]
        title = f'{len(rows)} hostile strings of {SIZE:,} bytes, seconds; {len(slow)} at or over {BOUND:g} s'
        print_table(rows if args.all else rows[:max(12, len(slow))], title)
        for r in rows: r |= {n: None for n in POLICIES if r[n]==float('inf')}
        results = dict(bytes=SIZE, bound_seconds=BOUND, over_bound=[r['piece'] for r in slow], results=rows)
        save('cleaning', args, 'regex emoji', results, part='hostile')

if __name__=='__main__': main()
