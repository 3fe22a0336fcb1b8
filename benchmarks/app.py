"""What does a click on Predict cost the server beside the model's own time, and what does a long file cost it?

Method: a real `sentiment-nb app` under a real headless Chromium. Part `click`: after warm-up clicks that are not
counted, texts are typed and sent one by one; the server's processor time for each click (user and system, all
threads) is set beside that of `Predictor.predict` and `explain` on the same texts in this process, and the time from
the key press to the words on the screen beside theirs. A click with no text, which asks the model nothing, shows what
is left. Part `file`: a CSV of tweets, repeated until it has so many rows, is uploaded and predicted; resident memory
of the server is sampled five times a second, and its speed is set beside that of `Predictor.predict_iter` on the same
texts.

    python benchmarks/app.py --model models/quickstart
    python benchmarks/app.py --model models/quickstart --part file --rows 100000
"""
import argparse, csv, re, shutil, subprocess, sys, tempfile, threading, time
from contextlib import contextmanager
from itertools import cycle, islice
from pathlib import Path
import psutil
from playwright.sync_api import sync_playwright
from common import print_table, save, say, spread
from sentiment_nb.data import load_tweets
from sentiment_nb.inference import Predictor, explain

BOUND = 100 # Milliseconds of a second click beyond the model's own time
BROWSERS = 'chromium', 'chromium-browser', 'google-chrome', 'chrome'

@contextmanager
def page(model):
    "A tab at a running page, and the process of its server"
    command = [sys.executable, '-m', 'sentiment_nb.cli', 'app', '--model', model, '--port', '0']
    p = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        url = re.search(r'http://\S+', p.stdout.readline())[0]
        with sync_playwright() as pw:
            path = next(filter(None, map(shutil.which, BROWSERS)))
            browser = pw.chromium.launch(executable_path=path, args=['--no-sandbox'])
            tab = browser.new_page()
            tab.set_default_timeout(60_000)
            while True:
                try: tab.goto(url); break
                except Exception: time.sleep(.1)
            yield tab, url, psutil.Process(p.pid)
            browser.close()
    finally:
        p.terminate()
        p.wait(60)

QUIET = "document.querySelector('[data-testid=stApp]').dataset.testScriptState=='notRunning'"
SHOWN = "t => [...document.querySelectorAll('p[dir=auto]')].some(p => p.textContent.trim()==t)"

def quiet(tab): tab.wait_for_function(QUIET)
def cpu(process): return sum(process.cpu_times()[:2])

def click(tab, process, text):
    "Milliseconds of the server's processor, and from key press to what is shown"
    box = tab.get_by_role('textbox', name='Text')
    box.fill(text)
    quiet(tab)
    time.sleep(.2)
    before = cpu(process)
    start = time.perf_counter()
    box.press('Control+Enter')
    if text.strip(): tab.wait_for_function(SHOWN, arg=text.strip())
    else: tab.get_by_text('There is no text yet').wait_for()
    shown = time.perf_counter()-start
    quiet(tab)
    time.sleep(.2)
    return 1000*(cpu(process)-before), 1000*shown

def own(predictor, text):
    "Milliseconds of the processor and of the clock that the model takes for the same answer"
    process = psutil.Process()
    before = cpu(process)
    start = time.perf_counter()
    predictor.predict(text)
    explain(predictor, text)
    return 1000*(cpu(process)-before), 1000*(time.perf_counter()-start)

def click_row(name, times):
    "A row of the table: processor time and the time until the screen shows it, of pairs in milliseconds"
    processor = [t for t,_ in times]
    screen = [t for _,t in times]
    return {'': name, 'server, ms of processor': spread(processor, 1), 'on the screen after, ms': spread(screen, 1)}

def measure_clicks(args, texts):
    predictor = Predictor(args.model)
    clicks = []
    alone = []
    with page(args.model) as (tab,_,process):
        tab.get_by_role('textbox', name='Text').wait_for()
        for t in texts[:args.repeat+5]:
            clicks.append(click(tab, process, t))
            alone.append(own(predictor, t))
        empty = []
        for i in range(10): # a text between two, or the page would not change
            empty.append(click(tab, process, ' '*(i+1)))
            click(tab, process, texts[i])
    clicks = clicks[5:] # behind those that warm up
    alone = alone[5:]
    rows = [click_row('a click', clicks), click_row('the model alone, in this process', alone),
        click_row('a click without a text', empty)]
    print_table(rows, f'One text with its evidence, n={len(clicks)}')
    beyond = spread([ours[0]-model[0] for ours,model in zip(clicks, alone)], 1)
    within = beyond['median']<=BOUND
    say(f"\nbeyond the model: {beyond['median']:.0f} ms of the server's processor "
        f"({beyond['low']:.0f} to {beyond['high']:.0f}), bound {BOUND} ms: {'held' if within else 'MISSED'}")
    results = dict(bound_ms=BOUND, within_bound=within, beyond_ms=beyond, rows=rows)
    save('app', args, 'streamlit onnxruntime playwright', results, 'click')

class MemoryWatch(threading.Thread):
    "Resident memory of a process, five times a second"
    def __init__(self, process):
        super().__init__()
        self.process = process
        self.values = []
        self.over = threading.Event()

    def run(self):
        while not self.over.wait(.2): self.values.append(self.process.memory_info().rss)

    def stop(self):
        self.over.set()
        self.join()

def measure_file(args, texts):
    texts = list(islice(cycle(texts), args.rows))
    with tempfile.TemporaryDirectory() as d:
        path = Path(d)/'tweets.csv'
        with open(path, 'w', encoding='utf-8', newline='') as f:
            csv.writer(f).writerows([('id','text'), *enumerate(texts)])
        with page(args.model) as (tab,url,process):
            tab.get_by_role('textbox', name='Text').wait_for()
            click(tab, process, texts[0])
            tab.goto(f'{url}/file')
            before = process.memory_info().rss
            watch = MemoryWatch(process)
            watch.start()
            start = time.perf_counter()
            tab.locator('input[type=file]').set_input_files(path)
            tab.get_by_role('button', name=f'Predict {len(texts):,} rows').click()
            uploaded = time.perf_counter()-start
            tab.get_by_text('Least sure').wait_for(timeout=3_600_000)
            seconds = time.perf_counter()-start
            with tab.expect_download() as download: tab.get_by_role('button', name='Download CSV').click()
            with open(download.value.path(), encoding='utf-8', newline='') as f:
                rows = sum(1 for _ in csv.reader(f))-1
            watch.stop()
        size = path.stat().st_size
    n = min(len(texts), 5000)
    start = time.perf_counter()
    for _ in Predictor(args.model).predict_iter(texts[:n]): pass
    alone = n/(time.perf_counter()-start)
    assert rows==len(texts), f'{rows} rows came back'
    peak = max(watch.values)
    say(f'{rows:,} rows, {size/1e6:.1f} MB: on the page after {uploaded:.1f} s, done after {seconds:.0f} s, '
        f'{rows/seconds:.0f} texts/s; the model alone {alone:.0f} texts/s (first {n:,} rows)')
    say(f'memory of the server: {before/1e6:.0f} MB before, {peak/1e6:.0f} MB at most')
    results = dict(rows=rows, file_mb=round(size/1e6, 2), seconds=round(seconds, 1),
        texts_per_second=round(rows/seconds, 1), alone_texts_per_second=round(alone, 1),
        memory_before_mb=round(before/1e6, 1), memory_peak_mb=round(peak/1e6, 1))
    save('app', args, 'streamlit onnxruntime playwright', results, 'file')

PARTS = dict(click=measure_clicks, file=measure_file)

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--model', default='models/quickstart', help='a model folder with ONNX files')
    p.add_argument('--part', choices=PARTS, default='click')
    p.add_argument('--repeat', type=int, default=30, help='clicks')
    p.add_argument('--rows', type=int, default=100_000, help='of the file')
    args = p.parse_args()
    texts = [t for t in dict.fromkeys(' '.join(t.split()) for t in load_tweets()['text'][:6000]) if t]
    PARTS[args.part](args, texts)

if __name__=='__main__': main()
