#!/usr/bin/env python3
"""Compares Moetron's chat templates with transformers' apply_chat_template, and its Jinja with jinja2's.

    chat_template_oracle.py CHAT_TOOL DATA

DATA holds tokenizers/ and instruct/. Every template there, and some written here, renders conversations of
every file there (a sample), with and without tools, thinking and generation prompt, and random ones: texts
must be equal byte for byte, and errors in what jinja2 says. Then random small templates (expressions,
filters, statements, white space) run in both. MOETRON_LONG_TESTS=1 takes all conversations and many more
templates. Exits with 1 on any difference.
"""
import json
import os
import pathlib
import random
import subprocess
import sys
import time

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import jinja2  # noqa: E402
from tokenizers import Tokenizer, models  # noqa: E402
from transformers import PreTrainedTokenizerFast  # noqa: E402
from transformers.utils.chat_template_utils import _cached_compile_jinja_template  # noqa: E402

LONG = os.environ.get("MOETRON_LONG_TESTS") == "1"
TOKENS = dict(bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>")

# Templates of the kinds that the data lacks: alternating roles, macros, generation blocks, dates.
OWN_TEMPLATES = {
    "alternating": """{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}""",
    "macros": """{%- macro type_of(spec) -%}
    {%- set names = {"string": "str", "number": "float", "integer": "int", "boolean": "bool"} -%}
    {%- if names[spec.type] is defined -%}{{- names[spec.type] -}}
    {%- elif spec.type == "array" -%}{{- "list[" + type_of(spec|items|first|last|default({}, true) if false else spec['items']) + "]" -}}
    {%- elif spec.type == "object" -%}{{- "dict[str, Any]" -}}
    {%- elif spec.type is iterable and spec.type is not string -%}Union[{%- for t in spec.type -%}{{ type_of({"type": t}) }}{%- if not loop.last %},{% endif -%}{%- endfor -%}]
    {%- else -%}{{- "Any" -}}{%- endif -%}
{%- endmacro -%}
{{- bos_token }}
{%- for tool in tools or [] %}
{%- set f = tool.function if tool.function is defined else tool %}
def {{ f.name }}({% for name, spec in f.parameters.properties|items %}{{ name }}: {{ type_of(spec) }}{{ ", " if not loop.last }}{% endfor %}): {{ f.description | default('') | replace("\\n", " ") | tojson }}
{{ f | tojson(indent=2) }}
{% endfor -%}
{%- for m in messages if m.role != 'system' %}
[{{ loop.index }}/{{ loop.length }}] {{ m.role | upper }}: {{ (m.content or '') | trim }}{{ '|' ~ loop.previtem.role if not loop.first }}
{%- for call in m.tool_calls | default([]) %} <{{ call.function.name }}|{{ call.function.arguments if call.function.arguments is string else call.function.arguments | tojson }}>{% endfor %}
{%- endfor %}
{{- eos_token if not add_generation_prompt else '\n[next] ASSISTANT:' }}""",
    "generation": """{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou help.<|im_end|>\n' }}{% endif %}{{ '<|im_start|>' + message['role'] + '\n' }}{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] }}{{ '<|im_end|>' }}{% endgeneration %}{{ '\n' }}{% else %}{{ message['content'] + '<|im_end|>' + '\n' }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}""",
    "dates": """{%- set ns = namespace(system='', seen=false, n=0) -%}
Today is {{ strftime_now("%d %B %Y") }}{# no time: it passes #}
{% for m in messages -%}
  {%- if m.role in ['system', 'developer'] -%}{%- set ns.system = ns.system ~ m.content ~ '\n' -%}{%- continue -%}{%- endif -%}
  {%- if not ns.seen %}{% set ns.seen = true %}<<SYS>>{{ ns.system.rstrip() }}<</SYS>>{% endif %}
  {%- set ns.n = ns.n + 1 %}
  {%- if ns.n > 40 %}{% break %}{% endif %}
  {%- if m.content is string %}{{ m.role.title() }}: {{ m.content.split('</think>')[-1].strip() }}
  {%- else %}{{ m.role.title() }}: {{ m.content | tojson }}{% endif %}
  {%- if m.reasoning_content %} (thought: {{ m.reasoning_content | length }} {{ m.reasoning_content[:20] }}){% endif %}
{% else -%}
  nobody said anything
{%- endfor %}
{%- if add_generation_prompt and (enable_thinking | default(true)) %}<think>{% elif add_generation_prompt %}<think></think>{% endif %}""",
}


class Tool:
    """The program under test: a question, an answer."""

    def __init__(self, path):
        self.process = subprocess.Popen([path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def ask(self, **request):
        self.process.stdin.write(json.dumps(request).encode() + b"\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"chat_tool ended at {json.dumps(request)[:3000]}")
        return json.loads(line)


def tokenizer_of(template):
    plain = Tokenizer(models.WordLevel({token: i for i, token in enumerate(TOKENS.values())}, unk_token="<unk>"))
    return PreTrainedTokenizerFast(tokenizer_object=plain, chat_template=template, **TOKENS)


def templates(data):
    for path in sorted(data.glob("tokenizers/**/*.jinja")) + sorted(data.glob("configs/**/chat_template*.jinja")):
        yield path.name, path.read_text()
    for path in sorted(data.glob("tokenizers/*/tokenizer_config*.json")) + sorted(
            data.glob("configs/*/tokenizer_config*.json")):
        template = json.loads(path.read_text()).get("chat_template")
        if isinstance(template, str):
            yield f"{path.parent.name}/{path.name}", template
    yield from OWN_TEMPLATES.items()


ROLES = {"human": "user", "gpt": "assistant", "function_call": "assistant", "observation": "tool"}


def conversations_of(path):
    """(messages, tools) of a file of instruct/, roughly: what matters is that templates see all kinds."""
    text = path.read_text()
    records = json.loads(text) if text.lstrip().startswith("[") else [json.loads(line) for line in text.splitlines()]
    for record in records:
        tools = record.get("tools")
        if isinstance(tools, str):
            tools = json.loads(tools) if tools.strip() else None
        if "instruction" in record:
            yield [dict(role="user", content=record["instruction"] + "\n" + record.get("input", "")),
                   dict(role="assistant", content=record["output"])], tools
        for key in ("messages", "conversations", "chosen_messages"):
            if key not in record:
                continue
            messages = []
            for turn in record[key]:
                if "from" in turn:
                    turn = dict(role=ROLES.get(turn["from"], turn["from"]), content=turn["value"],
                                source=turn["from"])
                    if turn.pop("source") == "function_call":
                        call = json.loads(turn["content"])
                        turn = dict(role="assistant", content="",
                                    tool_calls=[dict(type="function", function=call)])
                messages.append(turn)
            yield messages, tools


PIECES = ["hello", " ", "\n", "\n\n", "<think>", "</think>", "<|im_end|>", "<tool_response>", "</tool_response>",
          "{{ x }}", "{% if %}", "\u00e9", "e\u0301", "\u4f60\u597d", "\U0001f600", "\u2028", "\x00", "\t", "\\", '"', "'",
          "\u00df", "\u0130", "\u03a3", "&lt;<b>", "a" * 50, "\u200b", "\u00a0", "\ufeff", "0", "```"]


def random_text(draw):
    return "".join(draw.choice(PIECES) for _ in range(draw.choice([0, 1, 2, 5, 9])))


def random_value(draw, depth=0):
    kind = draw.randrange(8 if depth < 3 else 6)
    if kind == 0:
        return draw.choice([None, True, False])
    if kind == 1:
        return draw.choice([0, -1, 7, 10**15, -2**40])
    if kind == 2:
        return draw.choice([0.5, -0.0, 1e20, 1.5e-7, 123456.789, 1e16, 3.0])
    if kind < 6:
        return random_text(draw)
    if kind == 6:
        return [random_value(draw, depth + 1) for _ in range(draw.randrange(4))]
    return {draw.choice(["a", "type", "items", "name", random_text(draw)]): random_value(draw, depth + 1)
            for _ in range(draw.randrange(4))}


def random_conversation(draw):
    messages = []
    if draw.random() < 0.3:
        messages.append(dict(role=draw.choice(["system", "developer"]), content=random_text(draw)))
    for _ in range(draw.choice([1, 1, 2, 4])):
        messages.append(dict(role="user", content=random_text(draw)))
        if draw.random() < 0.25:
            calls = [dict(type="function", id="c%d" % i, function=dict(
                name="f", arguments=draw.choice([random_value(draw), {"x": random_value(draw)}, '{"x": 1}'])))
                for i in range(draw.choice([1, 1, 2]))]
            messages.append(dict(role="assistant", content=draw.choice(["", None, random_text(draw)]), tool_calls=calls))
            if draw.random() < 0.4:
                messages[-1]["reasoning_content"] = random_text(draw)
            messages += [dict(role="tool", content=random_text(draw), tool_call_id="c0")
                         for _ in range(draw.choice([1, 2]))]
        if draw.random() < 0.9:
            message = dict(role=draw.choice(["assistant"] * 9 + ["narrator"]), content=random_text(draw))
            if draw.random() < 0.3:
                message[draw.choice(["reasoning_content", "thinking", "reasoning"])] = random_text(draw)
            if draw.random() < 0.1:
                message["content"] = [dict(type="text", text=random_text(draw))]
            messages.append(message)
    tools = None
    if draw.random() < 0.4:
        tools = [dict(type="function", function=dict(
            name="f", description=random_text(draw), parameters=dict(type="object", properties={
                "x": draw.choice([dict(type="string"), dict(type=["string", "integer"]), dict(type="array", items=dict(type="integer")),
                                  dict(type="object", enum=[random_value(draw)])])})))
            for _ in range(draw.choice([0, 1, 2]))]
    return messages, tools


def expected_of(make):
    """("text", ...) or ("error", what must be said or None)"""
    try:
        return "text", make()
    except (jinja2.exceptions.UndefinedError, jinja2.exceptions.SecurityError) as error:
        return "error", str(error)
    except jinja2.exceptions.TemplateSyntaxError as error:
        # Of filters and tests that there are not, some jinja2 misses before it runs, and Moetron where it comes to them.
        return ("lenient" if str(error.message).startswith("No ") else "error"), None
    except jinja2.exceptions.TemplateError as error:
        return "error", str(error)
    except RecursionError:
        return "recursion", None
    except Exception as error:  # what Python said: the words are ours
        return "error", None


def difference(expected, answer):
    kind, value = expected
    if kind in ("recursion", "lenient"):
        return None
    if kind == "text":
        if "error" in answer:
            return f"failed: {answer['error']}; expected {value!r}"
        return None if answer["text"] == value else f"gave\n  {answer['text']!r}\nexpected\n  {value!r}"
    if "error" not in answer:
        return f"gave {answer['text']!r}; expected the error {value!r}"
    if value is not None and answer["error"] != value and "not supported" not in answer["error"]:
        return f"said {answer['error']!r}; expected the error {value!r}"
    return None


def conversation_files(data):
    """Without the caches that runs leave beside them."""
    return [path for path in sorted((data / "instruct").rglob("*.json*"))
            if path.name != "dataset_info.json" and ".moetron_cache" not in path.parts]


def compare_templates(tool, data, failures):
    draw = random.Random(7)
    sample = []
    for path in conversation_files(data):
        all_of_file = list(conversations_of(path))
        count = len(all_of_file) if LONG else 5
        sample += draw.sample(all_of_file, min(count, len(all_of_file)))
    sample += [random_conversation(draw) for _ in range(3000 if LONG else 100)]
    rendered = 0
    for name, template in templates(data):
        tokenizer = tokenizer_of(template)
        if "error" in (opened := tool.ask(template=template, tokens=tokenizer.special_tokens_map)):
            failures.append(f"{name} does not parse: {opened}")
            continue
        for messages, tools in sample:
            settings = [(draw.random() < 0.5, draw.choice([{}, {}, dict(enable_thinking=False), dict(enable_thinking=True),
                                                           dict(builtin_tools=["f", "code_interpreter"], date_string="1 May 2026")]))]
            for prompt, variables in settings:
                expected = expected_of(lambda: tokenizer.apply_chat_template(
                    messages, tools=tools, tokenize=False, add_generation_prompt=prompt, **variables))
                answer = tool.ask(messages=messages, tools=tools,
                                  settings=dict(add_generation_prompt=prompt, variables=variables))
                rendered += 1
                if found := difference(expected, answer):
                    failures.append(f"{name} {json.dumps([messages, tools, prompt, variables])[:1500]} {found}")
    return rendered


class TemplateMaker:
    """Random templates of what jinja2 knows."""

    NAMES = ["messages", "s", "n", "f", "d", "l", "t", "nope", "x", "y", "u", "e", "none_", "m"]
    FILTERS = ["trim", "upper", "lower", "length", "list", "first", "last", "string", "tojson", "join(', ')", "join",
               "default('d')", "default(1, true)", "int", "float", "abs", "sort", "reverse", "unique|list", "items|list",
               "replace('a', 'bb')", "replace('l', '', 1)", "capitalize", "title", "indent", "indent(2, true)",
               "indent('> ', blank=true)", "round", "round(1)", "round(2, 'floor')", "sum", "map('upper')|list",
               "map(attribute='a')|list", "map(attribute='a', default='q')|list", "select|list", "select('string')|list",
               "reject('none')|list", "selectattr('a')|list", "selectattr('a', 'equalto', 1)|list", "rejectattr('a', 'defined')|list",
               "dictsort", "dictsort(by='value')", "tojson(indent=2)", "tojson(ensure_ascii=true)", "tojson(separators=(',', ':'))",
               "tojson(sort_keys=true)", "batch(2)|list", "batch(2, 'f')|list", "slice(2)|list", "max", "min", "count", "d", "e",
               "truncate(5)", "truncate(8, true, '!', 0)", "center(9)", "wordcount", "sort(reverse=true)", "sort(attribute='a')",
               "trim('a ')", "format(1)", "nofilter", "safe", "select('gt', 1)|list", "map('int')|list", "map('length')|list",
               "reject('in', [1, 2])|list"]
    TESTS = ["defined", "undefined", "none", "string", "number", "mapping", "sequence", "iterable", "true", "false", "boolean",
             "integer", "float", "odd", "even", "lower", "upper", "divisibleby 2", "divisibleby(3)", "in [1, 'a']", "eq 1",
             "equalto('a')", "ne none", "gt 0", "callable", "sameas none", "escaped", "notatest", "filter", "test"]
    METHODS = ["strip()", "lstrip('a')", "rstrip()", "split()", "split('l')", "split('l', 1)", "rsplit(None, 1)", "splitlines()",
               "startswith('h')", "endswith(('o', 'x'))", "replace('l', 'LL')", "upper()", "lower()", "title()", "capitalize()",
               "find('l')", "rfind('l')", "index('l')", "count('l')", "isdigit()", "isalpha()", "isspace()", "isupper()", "join(['a', 'b'])",
               "items()", "keys()|list", "values()|list", "get('a')", "get('zz', 5)", "append(1)", "pop()", "update({})", "copy()",
               "index(1)", "count(1)", "format(1, a=2)", "zfill(4)", "ljust(8, '.')", "partition('l')", "removeprefix('he')",
               "nomethod()", "islower()", "isalnum()", "swapcase()", "rindex('h')", "isnumeric()", "__class__", "_x"]

    def __init__(self, draw):
        self.draw = draw
        self.sense = 1  # how often expressions make sense

    def pick(self, *options):
        return self.draw.choice(options)

    def literal(self):
        return self.pick("1", "0", "-2", "3.5", "'a'", "'hello'", '"it\'s"', "'\\n'", "'\\u00e9\\x41'", "true", "none", "False",
                         "[]", "[1, 2, 3]", "['b', 'A', 'c']", "(1, 'a')", "()", "(1,)", "{}", "{'a': 1, 'b': [2]}", "{1: 'one'}",
                         "[{'a': 1}, {'a': 2}, {}]", "1e3", "0x1F", "1_000", "''", "'\u4f60\u597d'", "'\u00dfx'", "[none, 'x', 0]", "2.0", "1e16")

    # Expressions that mostly make sense, so that not all random templates end at their first mistake.
    TYPED = {
        "str": ["s", "u", "e", "'hello'", "'a b  c'", "messages[0].role", "d['items']", "{str}|upper", "{str}|lower", "{str}|trim", "{str}|title",
                "{str}|capitalize", "{str} ~ {any}", "({str} + {str})", "{str}.strip()", "{str}.replace('l', {str})", "{list}|join('-')", "{any}|string",
                "{any}|tojson", "{str}[1:]", "{str}[::-1]", "{str}[{int}]", "{str} * 2", "({str} if {bool} else {str})", "'%s:%s' % ({any}, {any})",
                "{str}|indent(2)", "{str}|replace('e', '')", "{str}|default('z')", "{str}.split('l')[0]", "{list}|tojson(indent=1)", "{str}|e",
                "{str}|truncate(4)", "{str}.title()", "{str}.upper()", "{str}|reverse", "{str}.join(['x', 'y'])", "'{}-{}'.format({any}, {int})",
                "{str}|center(9)", "{str}.lstrip('h')", "{str}.rstrip()", "{str}.removeprefix('h')", "{dict}|tojson", "'%5s|%-3s|' % ({str}, {str})"],
        "int": ["n", "1", "0", "-2", "{str}|length", "{list}|length", "({int} + {int})", "({int} - {int})", "{int} * 2", "({int} // 2)", "({int} % 3)",
                "'12'|int", "{int}|abs", "{list}|count", "[1, 2, 3]|sum", "{str}.find('l')", "{str}.count('l')", "t[1]", "{bool}|int", "f|int", "7 // -2", "-7 % 3"],
        "num": ["{int}", "f", "1.5", "({num} / 4)", "{int} ** 2", "f|round", "{num}|float", "2.675|round(2)", "1e20", "0.1 + 0.2", "f * {num}", "-f // 1"],
        "list": ["l", "t", "m", "[]", "[3, 1]", "['b', 'A']", "[{any}, {any}]", "{str}.split()", "{str}|list", "t[1:3]", "{list}[::2]", "({list} + {list})",
                 "{list}|reverse|list", "t|sort", "{str}.split('l')", "range(4)|list", "{dict}|list", "{dict}.keys()|list", "{dict}.items()|list",
                 "{list}|map('string')|list", "t|select('odd')|list", "t|batch(2)|list", "{list}|unique|list", "messages|map(attribute='role')|list",
                 "messages|selectattr('a', 'defined')|map(attribute='content')|list", "{list}|reject('none')|list", "{str}.splitlines()",
                 "t|slice(2)|list", "messages|rejectattr('role', 'eq', 'user')|list", "{dict}|dictsort", "m|sum(start=[])", "['b', 'A', 'c']|sort"],
        "dict": ["d", "messages[1]", "{}", "{{'a': {any}}}", "{{'k': {any}, 'j': {any}}}", "dict(a={any})", "({dict} if {bool} else {dict})", "{{1: 2, '1': 3, 1.0: 4}}"],
        "bool": ["true", "false", "{any} is defined", "{any} is string", "{num} > {num}", "{any} == {any}", "{str} in {str}", "{any} in {list}", "not {any}",
                 "({any} and {any})", "({any} or {any})", "{str}.startswith('h')", "{any} is none", "{any} is mapping", "{any} is iterable", "{str} < {str}",
                 "{int} is odd", "'a' in {dict}", "{any} not in {list}", "{str} is lower", "1 < {int} <= 3", "{any} is sequence", "{any} is number"],
        "any": ["{str}", "{int}", "{list}", "{dict}", "{bool}", "{num}", "nope", "none", "nope|default({any})", "{list}[{int}]", "{list}|first", "{list}|last",
                "{dict}.a", "{dict}['a']", "{dict}.get('b', {any})", "x", "t|max", "t|min", "(1, {any})", "{dict}.zz", "nope is defined and nope.x"],
    }

    def typed(self, kind="any", depth=0):
        options = self.TYPED[kind]
        chosen = self.draw.choice(options[:6] if depth > 3 and kind != "any" else options)
        if depth > 5:
            chosen = {"any": "s", "str": "s", "int": "n", "num": "f", "list": "l", "dict": "d", "bool": "true"}[kind]
        for part in ("str", "int", "list", "dict", "bool", "num", "any"):
            while "{" + part + "}" in chosen:
                chosen = chosen.replace("{" + part + "}", "\0", 1).replace("\0", self.typed(part, depth + 1))
        return chosen if depth else chosen.replace("{{", "{ ").replace("}}", " }")

    def expression(self, depth=0):
        if self.draw.random() < self.sense:
            return self.typed()
        if depth > 3 or self.draw.random() < 0.2:
            return self.literal() if self.draw.random() < 0.5 else self.pick(*self.NAMES)
        e = lambda: self.expression(depth + 1)
        kind = self.draw.randrange(16)
        if kind < 3:
            return f"{e()}|{self.pick(*self.FILTERS)}"
        if kind == 3:
            return f"({e()} {self.pick('+', '-', '*', '/', '//', '%', '~', '**' if depth > 2 else '+')} {e()})"
        if kind == 4:
            return f"{e()} {self.pick('==', '!=', '<', '<=', '>', '>=', 'in', 'not in')} {e()}"
        if kind == 5:
            return f"({e()} {self.pick('and', 'or')} {self.pick('', 'not ')}{e()})"
        if kind == 6:
            return f"({e()} if {e()}{self.pick(' else ' + e(), '')})"
        if kind == 7:
            return f"({e()} is {self.pick('', 'not ')}{self.pick(*self.TESTS)})"
        if kind == 8:
            return f"{self.pick(*self.NAMES)}.{self.pick('a', 'b', 'items', 'role', 'content', 'zz', '0', 'x')}"
        if kind == 9:
            return f"{self.primary()}[{e()}]"
        if kind == 10:
            part = lambda: self.pick("", "1", "-1", "0", "2", "-3", "10", e())
            return f"{self.primary()}[{part()}:{part()}{self.pick('', ':' + self.pick('', '1', '-1', '2', '-2', '0'))}]"
        if kind < 13:
            return f"{self.primary()}.{self.pick(*self.METHODS)}"
        if kind == 13:
            return self.pick(f"range({e()})|list", f"range(1, 9, 3)|list", f"dict(a={e()})", f"[{e()}, {e()}]", f"{{'k': {e()}}}",
                             f"namespace(a={e()}).a", f"({e()}, {e()})", "loop.index", "cycler('a', 'b').next()", "ns.v")
        if kind == 14:
            return f"'{self.pick('%s', '%d!', '%5s|', '%-4s|', '%05.1f', '%%', '%x', '%r', '%s %s')}' % {self.pick(e(), f'({e()},)', f'({e()}, {e()})')}"
        return f"-{self.primary()}"

    def primary(self):
        return self.pick(self.literal(), *self.NAMES, f"({self.expression(3)})")

    def text(self):
        return self.pick("", " ", "\n", "  \n  ", "a", " b ", "\n\n", "x\n", "\ty", "}}", "%}", "{", "\r\n", "\u00a0")

    def tag(self, inside):
        return "{%" + self.pick("", "-", "+", "", "") + " " + inside + " " + self.pick("", "-", "", "+") + "%}"

    def body(self, depth):
        return "".join(self.statement(depth) for _ in range(self.draw.choice([1, 1, 2, 3])))

    def statement(self, depth=0):
        e = lambda: self.expression(1)
        kind = self.draw.randrange(17 if depth < 3 else 6)
        if kind < 2:
            return self.text()
        if kind < 5:
            return "{{" + self.pick("", "-", "") + " " + e() + " " + self.pick("", "-") + "}}"
        if kind == 5:
            return self.pick(self.tag(f"set {self.pick('x', 'y', 'x, y', 'ns.v')} = {e()}"), "{#" + self.pick("", "-") + " c " + self.pick("", "-") + "#}",
                             "{{ [ns.v] }}", self.tag("raw") + "{{ raw }}" + self.text() + self.tag("endraw"))
        body = lambda: self.text() + self.body(depth + 1) + self.text()
        if kind < 9:
            middle = self.pick("", self.tag(f"elif {e()}") + body()) + self.pick("", self.tag("else") + body())
            return self.tag(f"if {e()}") + body() + middle + self.tag("endif")
        if kind < 12:
            target = self.pick("x", "x", "x", "x", "x, y")
            seen = "{{ " + self.pick("x", "loop.index", "loop.last", "loop.length", "loop.previtem", "loop.nextitem", "loop.revindex0", "loop.first",
                                     "loop.cycle('a', 'b')", "loop.changed(x)", "x|tojson", "loop.depth", "loop.nope") + " }}"
            inside = self.pick("", "", self.tag("if loop.index > 2") + self.tag(self.pick("break", "continue")) + self.tag("endif"))
            condition = self.pick("", "", f" if {e()}", " if x", f" if ns.v")
            return (self.tag(f"for {target} in {self.pick(self.typed('list', 1), 'l', 'd.items()', 'messages', 'range(4)', 's', 'l|select', 'm')}{condition}")
                    + seen + inside + body() + self.pick("", self.tag("else") + body()) + self.tag("endfor"))
        if kind == 12:
            return (self.tag(f"macro mac({self.pick('', 'x', 'x, y=2', f'x={e()}')})") + body() + self.pick("", "", "", "{{ caller() }}", "{{ varargs }}", "{{ kwargs }}")
                    + self.tag("endmacro") + "{{ mac(" + self.pick("", "", "1", "1, 2", "y=3", "1, 2, 3", "z=1") + ") }}")
        if kind == 13:
            return self.tag(f"set x{self.pick('', '|upper', '|trim|length')}") + body() + self.tag("endset") + "{{ x }}"
        if kind == 14:
            return self.tag(f"with x = {e()}, y = x") + body() + self.tag("endwith")
        if kind == 15:
            return self.tag(f"filter {self.pick('upper', 'trim', 'indent(2)', 'replace(1, 2)')}") + body() + self.tag("endfilter")
        return (self.tag("macro w(a)") + "[{{ caller(a) }}]" + self.tag("endmacro") + self.tag(f"call(q) w({e()})") + "{{ q }}" + body()
                + self.tag("endcall"))


VARIABLES = dict(messages=[dict(role="user", content="hi"), dict(role="assistant", content="yo", a=1), dict(role="user", content="")],
                 s="hello", n=3, f=2.5, d={"a": 1, "b": [1, 2], "items": "it", "c": None}, l=[3, 1, 2, "b", "a"], t=[1, 2, 3, 4, 5],
                 u="\u00c9t\u00e9 \u4f60\u597d stra\u00dfe\n\u03a3\u03c3", e="", none_=None, m=[[1, 2], [3, 4]])


def compare_jinja(tool, failures, seed, seconds, count):
    draw = random.Random(seed)
    maker = TemplateMaker(draw)
    stats = dict(equal=0, errors=0, refused=0)
    end = time.time() + seconds
    for _ in range(count):
        if time.time() > end:
            break
        maker.sense = draw.choice([1, 1, 1, 0.9, 0.5])
        template = "{% set ns = namespace(v=1) %}" + maker.body(0)
        expected = expected_of(lambda: _cached_compile_jinja_template(template).render(**VARIABLES))
        if expected[0] == "text" and ("<generator" in expected[1] or " at 0x" in expected[1] or "<function" in expected[1]
                                      or "<bound" in expected[1] or "<built-in" in expected[1] or "<list_reverse" in expected[1]):
            continue  # addresses
        answer = tool.ask(template=template, tokens={})
        if "error" not in answer:
            answer = tool.ask(messages=VARIABLES["messages"], settings=dict(variables={k: v for k, v in VARIABLES.items() if k != "messages"}))
        if "error" in answer and ("not supported" in answer["error"] or answer["error"].endswith("is printed")
                                  # jinja2 folds slices of constants to nothing
                                  or answer["error"].endswith("object is not subscriptable")):
            stats["refused"] += 1
            continue
        stats["errors" if expected[0] == "error" else "equal"] += 1
        if found := difference(expected, answer):
            failures.append(f"seed {seed} {template!r}: {found}")
    return stats


def main():
    tool = Tool(sys.argv[1])
    failures = []
    start = time.time()
    rendered = compare_templates(tool, pathlib.Path(sys.argv[2]), failures)
    middle = time.time()
    stats = compare_jinja(tool, failures, int(os.environ.get("MOETRON_SEED", "1")), 600 if LONG else 4, 200000 if LONG else 1500)
    print(f"{rendered} conversations rendered in {middle - start:.1f} s; random templates: {stats} in {time.time() - middle:.1f} s")
    for failure in failures[:int(os.environ.get("MOETRON_SHOWN", "12"))]:
        print(failure)
    print(f"{len(failures)} differences")
    sys.exit(1 if failures or rendered == 0 or stats["equal"] == 0 else 0)


if __name__ == "__main__":
    main()
