#!/usr/bin/env python3
"""Gets the demo's text: two manuals, in English and in Chinese, from Debian packages.

    demo_text.py OUT

Downloads the packages with apt-get (which checks their signatures) without installing them, takes the
text out of their HTML pages, and writes OUT/<manual>.<language>.jsonl, one {"text": ...} a page or section.
The manuals are the Debian Reference (GPL-2+) and LibreOffice's help (MPL-2.0).
"""
import collections
import html.parser
import json
import pathlib
import re
import subprocess
import sys
import tempfile

# (package, glob of its pages, name of the output)
SOURCES = [
    ("debian-reference-en", "usr/share/debian-reference/*.en.html", "debian-reference.en"),
    ("debian-reference-zh-cn", "usr/share/debian-reference/*.zh-cn.html", "debian-reference.zh"),
    ("libreoffice-help-en-us", "usr/share/libreoffice/help/en-US/text/**/*.html", "libreoffice-help.en"),
    ("libreoffice-help-zh-cn", "usr/share/libreoffice/help/zh-CN/text/**/*.html", "libreoffice-help.zh"),
]
BLOCKS = {"p", "h1", "h2", "h3", "h4", "h5", "h6", "li", "td", "th", "dt", "dd", "pre", "div", "tr", "br"}
SKIPPED = {"script", "style", "head", "header", "aside", "nav", "footer", "noscript"}
SHORTEST_PAGE = 200  # characters: shorter ones are tables of contents and stubs
MOST_REPEATS = 3  # a paragraph seen more often than this is boilerplate


class Page(html.parser.HTMLParser):
    """Collects the paragraphs of an HTML page, in sections that begin with h2."""

    def __init__(self):
        super().__init__()
        self.sections, self.words, self.skipping, self.verbatim = [[]], [], 0, 0

    def end_paragraph(self):
        text = "".join(self.words)
        if not self.verbatim:
            text = re.sub(r"\s+", " ", text)
        if text.strip():
            self.sections[-1].append(text.strip("\n") if self.verbatim else text.strip())
        self.words = []

    def handle_starttag(self, tag, attributes):
        if tag in SKIPPED:
            self.skipping += 1
        if tag in BLOCKS:
            self.end_paragraph()
        if tag == "pre":
            self.verbatim += 1
        if tag == "h2" and self.sections[-1]:
            self.sections.append([])

    def handle_endtag(self, tag):
        if tag in BLOCKS:
            self.end_paragraph()
        if tag in SKIPPED:
            self.skipping -= 1
        if tag == "pre":
            self.verbatim -= 1

    def handle_data(self, data):
        if not self.skipping:
            self.words.append(data)


def read_sections(path):
    page = Page()
    page.feed(path.read_text(encoding="utf-8"))
    page.close()
    page.end_paragraph()
    return page.sections


def unpack(package, folder):
    subprocess.run(["apt-get", "download", "-q", package], cwd=folder, check=True, capture_output=True, text=True)
    subprocess.run(["dpkg-deb", "-x", str(next(pathlib.Path(folder).glob("*.deb"))), folder], check=True)


def write_manual(package, pattern, target):
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        unpack(package, folder)
        pages = [section for path in sorted(pathlib.Path(folder).glob(pattern)) for section in read_sections(path)]
    seen = collections.Counter(paragraph for page in pages for paragraph in page)
    size = documents = 0
    with open(target, "w", encoding="utf-8") as file:
        for page in pages:
            text = "\n".join(paragraph for paragraph in page if seen[paragraph] <= MOST_REPEATS)
            if len(text) >= SHORTEST_PAGE:
                file.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
                size += len(text.encode())
                documents += 1
    print(f"  {target.name}: {documents} documents, {size / 1e6:.1f} MB of text, from Debian's {package}")


def main():
    out = pathlib.Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    for package, pattern, name in SOURCES:
        try:
            write_manual(package, pattern, out / (name + ".jsonl"))
        except subprocess.CalledProcessError as error:
            said = (error.stderr or str(error)).strip().splitlines()[-1]
            sys.exit(f"demo: cannot get the package {package}: Debian's package archive must be reachable, with package "
                     f"lists that are not too old (apt-get update); apt-get says: {said}")


if __name__ == "__main__":
    main()
