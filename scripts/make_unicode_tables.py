#!/usr/bin/env python3
"""Writes moetron/tokenizer/unicode_{categories,scripts,versions}.cpp, the tables of Unicode that tokenizers need.

    .venv/bin/python scripts/make_unicode_tables.py

The library of scripts/requirements.txt is asked about every code point, for its ids are what counts: general categories
and scripts as its regular expressions have them (Oniguruma, Unicode 16.0), and where its other parts follow another
version: numbers and lower case (Rust's standard library), punctuation (the crate unicode_categories). Which characters
Unicode 9.0 has, by which it normalises, says Perl.
"""
import pathlib
import subprocess
import unicodedata

from tokenizers import Regex, normalizers, pre_tokenizers

FOLDER = pathlib.Path(__file__).resolve().parents[1] / "moetron/tokenizer"
CATEGORIES = "Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So Zs Zl Zp Cc Cf Co Cn".split()
ALTERNATING = 30  # Lu, Ll, Lu, ... one character each
NORMALISED_BY = "9.0"
SCRIPTS = """Adlam Ahom Anatolian_Hieroglyphs Arabic Armenian Avestan Balinese Bamum Bassa_Vah Batak Bengali Bhaiksuki
Bopomofo Brahmi Braille Buginese Buhid Canadian_Aboriginal Carian Caucasian_Albanian Chakma Cham Cherokee Chorasmian
Common Coptic Cuneiform Cypriot Cypro_Minoan Cyrillic Deseret Devanagari Dives_Akuru Dogra Duployan Egyptian_Hieroglyphs
Elbasan Elymaic Ethiopic Garay Georgian Glagolitic Gothic Grantha Greek Gujarati Gunjala_Gondi Gurmukhi Gurung_Khema Han
Hangul Hanifi_Rohingya Hanunoo Hatran Hebrew Hiragana Imperial_Aramaic Inherited Inscriptional_Pahlavi
Inscriptional_Parthian Javanese Kaithi Kannada Katakana Kawi Kayah_Li Kharoshthi Khitan_Small_Script Khmer Khojki
Khudawadi Kirat_Rai Lao Latin Lepcha Limbu Linear_A Linear_B Lisu Lycian Lydian Mahajani Makasar Malayalam Mandaic
Manichaean Marchen Masaram_Gondi Medefaidrin Meetei_Mayek Mende_Kikakui Meroitic_Cursive Meroitic_Hieroglyphs Miao Modi
Mongolian Mro Multani Myanmar Nabataean Nag_Mundari Nandinagari New_Tai_Lue Newa Nko Nushu Nyiakeng_Puachue_Hmong Ogham
Ol_Chiki Ol_Onal Old_Hungarian Old_Italic Old_North_Arabian Old_Permic Old_Persian Old_Sogdian Old_South_Arabian
Old_Turkic Old_Uyghur Oriya Osage Osmanya Pahawh_Hmong Palmyrene Pau_Cin_Hau Phags_Pa Phoenician Psalter_Pahlavi Rejang
Runic Samaritan Saurashtra Sharada Shavian Siddham SignWriting Sinhala Sogdian Sora_Sompeng Soyombo Sundanese Sunuwar
Syloti_Nagri Syriac Tagalog Tagbanwa Tai_Le Tai_Tham Tai_Viet Takri Tamil Tangsa Tangut Telugu Thaana Thai Tibetan
Tifinagh Tirhuta Todhri Toto Tulu_Tigalari Ugaritic Unknown Vai Vithkuqi Wancho Warang_Citi Yezidi Yi
Zanabazar_Square""".split()
POINTS = [c for c in range(0x110000) if not 0xd800 <= c < 0xe000]
ALL = "".join(map(chr, POINTS))
HEAD = """// Written by scripts/make_unicode_tables.py, which says where it is from.
#include "moetron/tokenizer/unicode_tables.h"

namespace moetron {
namespace {

"""


def characters_of(items):
    return normalizers.Replace(Regex(f"[^{items}]+"), "").normalize_str(ALL)


def as_ranges(points):
    ranges = []
    for c in sorted(points):
        # Surrogates are no characters: what stands on both sides of them may count as one range.
        if ranges and ranges[-1][1] == c - 1:
            ranges[-1][1] = c
        else:
            ranges.append([c, c])
    return ranges


def runs_of(names):
    """[[first, number of the name]], each up to the next."""
    number = {}
    for i, name in enumerate(names):
        for c in characters_of(rf"\p{{{name}}}"):
            assert number.setdefault(ord(c), i) == i, (c, name)
    assert len(number) == len(POINTS), "a code point has no name"
    runs = []
    for c in POINTS:
        if not runs or runs[-1][1] != number[c]:
            runs.append([c, number[c]])
    return runs


def fold_alternating(runs):
    upper, lower = CATEGORIES.index("Lu"), CATEGORIES.index("Ll")
    folded, i = [], 0
    while i < len(runs):
        end = i
        while (end + 1 < len(runs) and runs[end + 1][0] == runs[end][0] + 1
               and runs[end][1] == (upper, lower)[(end - i) % 2]):
            end += 1
        if end - i >= 3:
            folded.append([runs[i][0], ALTERNATING])
            i = end
        else:
            folded.append(runs[i])
            i += 1
    return folded


def array(kind, name, items):
    return f"constexpr std::array<{kind}, {len(items)}> {name}{{" + ", ".join(items) + "};\n"


def pair_array(kind, name, pairs):
    return array(kind, name, ["{" + ", ".join(f"{{0x{a:X}, 0x{b:X}}}" for a, b in pairs) + "}"]).replace(
        f"{kind}, 1>", f"{kind}, {len(pairs)}>")


def range_array(name, ranges):
    return pair_array("CodeRange", name, ranges)


def getter(kind, function, name):
    return f"std::span<const {kind}> {function}() {{\n  return {name};\n}}\n"


def write(name, head, arrays, getters):
    path = FOLDER / f"{name}.cpp"
    path.write_text(HEAD.replace("#include", f"{head}#include", 1) + "\n".join(arrays) + "\n}  // namespace\n\n" +
                    "\n".join(getters) + "\n}  // namespace moetron\n")
    subprocess.run(["clang-format-14", "-i", path], check=True)


def left_over(splitter):
    return {ord(c) for piece, _ in splitter.pre_tokenize_str(ALL) for c in piece}


def main():
    categories = runs_of(CATEGORIES)
    write("unicode_categories", "", [
        array("uint32_t", "kCategoryRuns", [str(first << 5 | number) for first, number in fold_alternating(categories)])],
        [getter("uint32_t", "category_runs", "kCategoryRuns")])
    write("unicode_scripts", "", [
        array("std::string_view", "kScriptNames", [f'"{name}"' for name in SCRIPTS]),
        array("uint32_t", "kScriptRuns", [str(first << 8 | number) for first, number in runs_of(SCRIPTS)])],
        [getter("std::string_view", "script_names", "kScriptNames"), getter("uint32_t", "script_runs", "kScriptRuns")])
    number = {ord(c) for c in characters_of(r"\p{N}")}
    ours = {ord(c) for c in characters_of(r"\p{P}") + "$+<=>^`|~"}
    theirs = set(POINTS) - left_over(pre_tokenizers.Punctuation("removed"))
    isolated = [piece for piece, _ in pre_tokenizers.Digits(True).pre_tokenize_str("aa".join(ALL))]
    numeric = {ord(piece) for piece in isolated if len(piece) == 1 and piece != "a"}
    assert number <= numeric
    assert unicodedata.unidata_version <= "15.0.0", "utf8proc may be older than this Python"
    lower = normalizers.Lowercase()
    changed = [(c, lower.normalize_str(chr(c))) for c in POINTS if c >= 0x80]
    changed = [(c, ord(text)) for c, text in changed if text != chr(c).lower()]
    known = subprocess.run(["perl", "-e", rf'for (0..0x10ffff) {{ print "$_\n" if chr =~ /\p{{Present_In: {NORMALISED_BY}}}/ }}'],
                           capture_output=True, check=True, text=True).stdout
    write("unicode_versions", "", [
        range_array("kUnicode9", as_ranges(map(int, known.split()))),
        range_array("kLaterNumbers", as_ranges(numeric - number)),
        range_array("kNoPunctuation", as_ranges(ours - theirs)),
        range_array("kMorePunctuation", as_ranges(theirs - ours)),
        pair_array("CasePair", "kLaterLower", changed)],
        [getter("CodeRange", "unicode_9", "kUnicode9"), getter("CodeRange", "later_numbers", "kLaterNumbers"),
         getter("CodeRange", "no_punctuation", "kNoPunctuation"),
         getter("CodeRange", "more_punctuation", "kMorePunctuation"),
         getter("CasePair", "later_lower_case", "kLaterLower")])


if __name__ == "__main__":
    main()
