"""The docs site without Quarto: what nbdev makes of the notebooks, rendered by smalldocs from the same `_quarto.yml` into `_docs/`.

Nothing is trained: only imports and exported cells run, for the signatures on the pages, and the cell that lists the reference.
"""
import base64, html, re, sys
from pathlib import Path

from latex2mathml.converter import convert
from nbdev.quarto import refresh_quarto_yml
from nbdev.serve import proc_nbs
from smalldocs.config import load
from smalldocs.site import Site

root = Path(__file__).resolve().parents[1]

def sharp(m):
    "An image of twice 100 dots an inch, the inch that matplotlib draws for a screen, shown at half its pixels"
    png = base64.b64decode(m[1][:1000])
    at = png.find(b'pHYs')
    per_metre = int.from_bytes(png[at+4:at+8], 'big') if at>0 else 3937
    return f'{m[0]} width="{round(int.from_bytes(png[16:20], "big")*3937/per_metre)}"'

def formula(m): return convert(html.unescape(m[1]))

def finish(page):
    "Images at their true size, formulas as MathML, and no links that nbdev wrote into code"
    page = re.sub(r'<img [^>]*?src="data:image/png;base64,([^"]+)"', sharp, page)
    page = re.sub(r'\[(`[^`<]+`)\]\(https?:[^)<]+\)', r'\1', page)
    return re.sub(r'<span class="math \w+">\\\((.*?)\\\)</span>', formula, page, flags=re.S)

class Book(Site):
    "A smalldocs site that knows the names nbdev gives to pages, and the address they will have"
    def read(self, src):
        page = super().read(src)
        page.out = page.out.with_name(page.front.get('output-file', page.out.name))
        return page

    def find_page(self, target):
        by_output = (p for p in self.pages.values() if p.out==target)
        return super().find_page(target) or next(by_output, None)

    def resolve(self, href, page, record=True):
        here = self.project.website['site-url'] + '/'
        if href.startswith(here): href = '/' + href.removeprefix(here)
        return super().resolve(href, page, record)

    def render_page(self, page):
        super().render_page(page)
        linked = re.sub(r'(?<=href=")\w+\.ipynb', lambda m: self.resolve(m[0], page), page.html) # in cells that made HTML
        page.html = finish(linked)
        page.env['math'] = False

    def copy_assets(self, nav):
        "The themes' fonts are fetched from elsewhere: a reader's own will do"
        super().copy_assets(nav)
        for css in (self.out/'site_libs'/'themes').rglob('*.css'):
            style = css.read_text(encoding='utf-8')
            css.write_text(re.sub(r'@import url\(https?:[^)]*\);?', '', style), encoding='utf-8')

def build(out=root/'_docs'):
    "Process the notebooks, render them into `out`; the pages, and what is wrong with them"
    refresh_quarto_yml()
    site = Book(load(proc_nbs(path=str(root/'nbs'), force=True)), quiet=True)
    site.out = Path(out)
    site.build()
    return site.pages, [f'{page}: broken link {href}' for page,href in site.broken]

if __name__=='__main__':
    pages,broken = build()
    if broken: sys.exit('\n'.join(broken))
    print(f'{len(pages)} pages in _docs/; to read them: python -m http.server -d _docs')
