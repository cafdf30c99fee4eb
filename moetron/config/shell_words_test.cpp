#include "moetron/config/shell_words.h"

#include <chrono>
#include <cstdio>
#include <filesystem>
#include <gmock/gmock.h>

#include <gtest/gtest.h>

#include "moetron/base/error.h"
#include "moetron/base/file.h"

namespace moetron {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

ShellContext context_of(std::map<std::string, std::string> variables = {},
                        std::vector<std::string> arguments = {}) {
  ShellContext context;
  context.variable = [variables](const std::string& name) -> std::optional<std::string> {
    const auto found = variables.find(name);
    return found == variables.end() ? std::nullopt : std::optional(found->second);
  };
  context.arguments = std::move(arguments);
  return context;
}

// The words of the last command; of one that a test decides, "word if test".
std::vector<std::string> words_of(const std::string& script, ShellContext context = context_of()) {
  const auto commands = read_shell_script(script, "run.sh", std::move(context));
  std::vector<std::string> words;
  if (commands.empty()) return words;
  for (const ShellWord& word : commands.back().words)
    words.push_back(word.text + (word.condition.empty() ? "" : " if " + word.condition));
  return words;
}

std::string error_of_script(const std::string& script) {
  try {
    read_shell_script(script, "run.sh", context_of());
    return "";
  } catch (const InputError& error) {
    return error.what();
  }
}

TEST(ShellWords, QuotesJoinAndProtect) {
  EXPECT_THAT(words_of("x 'a b'\"c d\"e \\$f \"\\$g 'h'\" \"\" i\\ j"),
              ElementsAre("x", "a bc de", "$f", "$g 'h'", "", "i j"));
  EXPECT_THAT(words_of("x --module-impl {\\\"core_attn\\\":\\\"local\\\"}"),
              ElementsAre("x", "--module-impl", "{\"core_attn\":\"local\"}"));
}

TEST(ShellWords, CommentsAndLinesThatGoOn) {
  EXPECT_THAT(words_of("# all 'of\nx a \\\n  b # c\n"), ElementsAre("x", "a", "b"));
  EXPECT_THAT(words_of("x a#b \\\r\n  c\r\n"), ElementsAre("x", "a#b", "c"));
  EXPECT_THAT(words_of("x \"a \\\nb\""), ElementsAre("x", "a b"));
}

TEST(ShellWords, VariablesAndTheirDefaults) {
  EXPECT_THAT(
      words_of("A=1 B=\"a b\"\nx $A ${A}2 $B \"$B\" ${C:-d} ${C-} ${A:-e} ${A:+f} \"${C:-}\""),
      ElementsAre("x", "1", "12", "a", "b", "a b", "d", "1", "f", ""));
  EXPECT_THAT(words_of("export A=${A:-1}\nx $A $HOME", context_of({{"A", "7"}})),
              ElementsAre("x", "7", "$HOME"));
  EXPECT_THAT(words_of("A=${1:-\"some/where\"}\nx $A \"$@\"", context_of({}, {})),
              ElementsAre("x", "some/where"));
  EXPECT_THAT(words_of("x $1 ${2} $3 \"$@\"", context_of({}, {"a b", "c"})),
              ElementsAre("x", "a", "b", "c", "$3", "a b", "c"));
  EXPECT_THAT(words_of("A=1\nA+=2\nx $A"), ElementsAre("x", "12"));
}

TEST(ShellWords, WhatIsNotKnownStaysOpen) {
  const auto commands =
      read_shell_script("A=$TP\nx $A $(date) `id` $((TP*2)) \"${B%.x}\"", "run.sh", context_of());
  const auto& words = commands.back().words;
  ASSERT_EQ(words.size(), 6u);
  EXPECT_EQ(words[1].text, "$TP");
  EXPECT_THAT(words[1].open, ElementsAre("TP"));
  EXPECT_EQ(words[2].text, "$(date)");
  EXPECT_THAT(words[4].open, ElementsAre("TP"));
  EXPECT_EQ(words[4].text, "$((TP*2))");
  EXPECT_EQ(words[5].text, "${B%.x}");
}

TEST(ShellWords, Arrays) {
  EXPECT_THAT(
      words_of("A=(\n  --a 1  # first\n  --b \"2 3\"\n)\nA+=(--c)\nx ${A[@]} \"${A[@]}\""),
      ElementsAre("x", "--a", "1", "--b", "2", "3", "--c", "--a", "1", "--b", "2 3", "--c"));
  EXPECT_THAT(words_of("A=(\"--a 1\")\nB=(\"${A[@]}\" -c)\nx ${B[*]}"),
              ElementsAre("x", "--a", "1", "-c"));
  EXPECT_THAT(words_of("A=()\nx \"${A[@]}\" ${A[@]+\"${A[@]}\"} b"), ElementsAre("x", "b"));
}

TEST(ShellWords, Arithmetic) {
  EXPECT_THAT(words_of("N=2\nx $((N*8)) $(( ${N} + 3 * ( 2 - 4 ) )) $((7/2)) $((7%4)) $((-N))"),
              ElementsAre("x", "16", "-4", "3", "3", "-2"));
  EXPECT_THAT(words_of("x $((1/0)) $((9223372036854775807+1)) $((a b)) $((1+))"),
              ElementsAre("x", "$((1/0))", "$((9223372036854775807+1))", "$((a b))", "$((1+))"));
  EXPECT_THAT(words_of("T=1000000000\nx $(( ${T} / 4096 / 4096 ))"), ElementsAre("x", "59"));
}

TEST(ShellWords, ATestThatIsKnownDecides) {
  EXPECT_THAT(
      words_of("A=fp8\nO=()\nif [[ \"$A\" == \"fp8\" ]]; then O+=(--yes); else O+=(--no); fi\n"
               "x ${O[@]}"),
      ElementsAre("x", "--yes"));
  EXPECT_THAT(
      words_of("A=2\nif [ $A -eq 1 ]; then O=1; elif [ \"$A\" = 2 ] && [ -n \"$A\" ]; then O=2\n"
               "else O=3; fi\nx $O"),
      ElementsAre("x", "2"));
  EXPECT_THAT(
      words_of("O=(-a)\n[ -z \"${V:-}\" ] || O+=(-b)\n[ -z \"${V:-}\" ] && O+=(-c)\nx ${O[@]}"),
      ElementsAre("x", "-a", "-c"));
  EXPECT_THAT(words_of("M=b\ncase $M in\n a) O=1 ;;\n b|c) O=2 ;;\n *) O=3 ;;\nesac\nx $O"),
              ElementsAre("x", "2"));
}

TEST(ShellWords, OfATestThatIsOpenBothBranchesAreTaken) {
  EXPECT_THAT(
      words_of("O=\"-a\"\nif [ -n \"$(v)\" ]; then O=\"$O -v 1\"; else O=\"$O -w\"; fi\nx $O -z"),
      ElementsAre("x", "-a", "-v if [ -n \"$(v)\" ]", "1 if [ -n \"$(v)\" ]",
                  "-w if not [ -n \"$(v)\" ]", "-z"));
  EXPECT_THAT(
      words_of("O=(-a)\nB=(-b)\nif [ -n \"$(v)\" ]; then\n  O+=(\"${B[@]}\" -c)\nfi\nx ${O[@]}"),
      ElementsAre("x", "-a", "-b if [ -n \"$(v)\" ]", "-c if [ -n \"$(v)\" ]"));
  EXPECT_THAT(words_of("O=(-a)\n[ \"$(v)\" != 1 ] || O+=(-b)\nx ${O[@]}"),
              ElementsAre("x", "-a", "-b if not [ \"$(v)\" != 1 ]"));
}

TEST(ShellWords, WhatNobodyHasSetIsNothingInATest) {
  const auto decided = [](const std::string& test) {
    return words_of("O=no\nif " + test + "; then O=yes; fi\nx $O").back();
  };
  for (const char* test :
       {"[ -z \"$V\" ]", "[ -n $V ]", "[ -z $V ]", "[[ $V == \"\" ]]", "[[ $V -eq 0 ]]",
        "[ \"$V\" != 1 ]", "! [ \"$V\" = 1 ]", "[ ! -f \"$V\" ]", "[ $# -lt 2 ]",
        "[ -n a ] && [ -z \"$V\" ]", "[[ -z $V && abc == a* ]]", "[ -z \"$1\" ]", "true"})
    EXPECT_EQ(decided(test), "yes") << test;
  for (const char* test :
       {"[ -n \"$V\" ]", "[ \"$V\" = 1 ]", "[ $V = 1 ]", "[ \"$V\" -eq 1 ]", "[ $V -gt 1 ]",
        "[ $V ]", "[[ $V -eq 1 ]]", "[[ -n $V ]]", "[ -f \"$V\" ]", "[ -n \"$V\" -o 1 -gt 2 ]",
        "[ ! a ]", "[[ abc == \"a*\" ]]", "false"})
    EXPECT_EQ(decided(test), "no") << test;
  for (const char* test : {"[ -f /some/file ]", "[ ! -f /some/file ]", "grep -q a file",
                           "[ \"$HOSTNAME\" = a ]", "[ -z \"$V\" ] && grep -q a file"})
    EXPECT_EQ(decided(test), concat("yes if ", test)) << test;
  EXPECT_THAT(words_of("A=$V\nx ${A:-d} ${A:+e} ${W:=f} $W"), ElementsAre("x", "d", "f", "f"));
  EXPECT_THAT(words_of("A=1\nunset A\n[ -n \"$A\" ] || B=c\nx $A $B"), ElementsAre("x", "c"));
  EXPECT_THAT(words_of("case $V in\n a*) O=1 ;;\n \"\") O=2 ;;\nesac\nx $O"),
              ElementsAre("x", "2"));
  const auto word =
      read_shell_script("x $V-$W", "run.sh", context_of({{"W", "w"}})).back().words[1];
  EXPECT_EQ(word.text, "$V-w");
  EXPECT_EQ(word.passed, "-w");
}

// What bash prints for a script, by lines.
std::vector<std::string> run_by_bash(const std::string& script) {
  const std::string file = testing::TempDir() + "moetron_shell_words_test.sh";
  write_file(file, script);
  FILE* pipe = ::popen(concat("bash ", file, " 2>/dev/null").c_str(), "r");
  std::vector<std::string> lines(1);
  for (int c = std::fgetc(pipe); c != EOF; c = std::fgetc(pipe)) {
    if (c == '\n') {
      lines.emplace_back();
    } else {
      lines.back() += static_cast<char>(c);
    }
  }
  EXPECT_EQ(::pclose(pipe), 0);
  lines.pop_back();
  std::filesystem::remove(file);
  return lines;
}

// Every test of these with every value, and what is then made of a word.
TEST(ShellWords, DecidesAsBashDoes) {
  const std::vector<std::string> values{"unset V", "V=", "V=1", "V=12", "V=abc", "V='a b'", "V=-n"};
  std::vector<std::string> bodies;
  for (const std::string& v :
       std::vector<std::string>{"$V", "\"$V\"", "${V}", "\"${V:-1}\"", "${V+x}"}) {
    for (const std::string& open : {std::string("["), std::string("[[")}) {
      const std::string close = open == "[" ? " ]" : " ]]";
      for (const std::string& test : std::vector<std::string>{
               v, "-n " + v, "-z " + v, v + " == 1", "1 = " + v, v + " != 1", v + " -eq 1",
               v + " -gt 1", "! -n " + v, "! " + v + " -le 1", "-f " + v + "/no"})
        bodies.push_back(concat("if ", open, " ", test, close, "; then O=yes; else O=no; fi"));
      bodies.push_back(
          concat("O=no; ", open, " -n ", v, close, " && ", open, " a != ", v, close, " && O=yes"));
      bodies.push_back(concat("O=no; ", open, " -z ", v, close, " || O=yes"));
      bodies.push_back(concat("O=no; if ! ", open, " ", v, " -lt 5", close, "; then O=yes; fi"));
    }
    bodies.push_back(concat("case ", v,
                            " in a*) O=a ;; [0-9]) O=digit ;; '') O=empty ;; 12|x) O=b ;; "
                            "*) O=c ;; esac"));
    bodies.push_back(concat("O=x", v, "y"));
    bodies.push_back(concat("A=(", v, " z); O=${A[*]}"));
  }
  std::vector<std::string> scripts;
  std::string all;
  for (const std::string& value : values) {
    for (const std::string& body : bodies) {
      scripts.push_back(concat(value, "; ", body, "\n"));
      all += concat("( ", value, "; ", body, "; set -f; printf '%s|' x $O; echo )\n");
    }
  }
  const std::vector<std::string> wanted = run_by_bash(all);
  ASSERT_EQ(wanted.size(), scripts.size());
  int num_decided = 0;
  for (size_t i = 0; i < scripts.size(); ++i) {
    const auto commands = read_shell_script(scripts[i] + "x $O", "run.sh", context_of());
    std::string found;
    bool is_decided = true;
    for (const ShellWord& word : commands.back().words) {
      is_decided &= word.condition.empty() && word.passed.has_value();
      found += word.passed.value_or("?") + "|";
    }
    if (!is_decided) continue;  // of files, for one
    EXPECT_EQ(found, wanted[i]) << scripts[i];
    ++num_decided;
  }
  EXPECT_GT(num_decided, static_cast<int>(scripts.size()) * 8 / 10);
}

TEST(ShellWords, ArgumentsAreShiftedAndSet) {
  const ShellContext twelve =
      context_of({}, {"a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"});
  EXPECT_THAT(words_of("A=$1\nshift\nB=$1\nshift 2\nx $A $B ${9} ${10} $10 $#", twelve),
              ElementsAre("x", "a", "b", "l", "${10}", "d0", "9"));
  EXPECT_THAT(words_of("x ${10} ${12}", twelve), ElementsAre("x", "j", "l"));
  EXPECT_THAT(words_of("set -- \"1 2\" 3\nset -e\nx \"$@\" $#", twelve),
              ElementsAre("x", "1 2", "3", "2"));
  EXPECT_THAT(words_of("while [ -n \"$1\" ]; do A=$1; shift; done\nx \"$@\" $1", twelve),
              ElementsAre("x", "$@", "$1"));
}

TEST(ShellWords, WhatIsNoCommandIsLeftOut) {
  EXPECT_THAT(words_of("x a > log 2>&1 b | tee file\n"), ElementsAre("tee", "file"));
  EXPECT_THAT(words_of("x a >log 2>&1 b </dev/null &>> more"), ElementsAre("x", "a", "b"));
  EXPECT_THAT(words_of("x a\ncat <<'EOF' >f\ny \"b\nEOF\n"), ElementsAre("cat"));
  EXPECT_THAT(words_of("f() {\n  x \"$1\"\n}\nfor i in 1 2; do x $i; done", context_of()),
              ElementsAre("x", "$i"));
  EXPECT_THAT(words_of(""), IsEmpty());
  EXPECT_THAT(words_of("fi done esac } )\nx"), ElementsAre("x"));
}

TEST(ShellWords, HostileScriptsEndInOneSentence) {
  EXPECT_EQ(error_of_script("x\ny 'a\n"), "run.sh, line 2: a quote (') is not closed");
  EXPECT_THAT(error_of_script("x \"a"), HasSubstr("line 1: a quote (\") is not closed"));
  EXPECT_THAT(error_of_script("x `a"), HasSubstr("a backquote"));
  EXPECT_THAT(error_of_script("A=(a"), HasSubstr("a bracket ( is not closed"));
  EXPECT_THAT(error_of_script("x ${A"), HasSubstr("a brace { is not closed"));
  std::string nested;
  for (int i = 0; i < 100000; ++i) nested += "${A:-";
  EXPECT_THAT(error_of_script("x " + nested), HasSubstr("nested more than"));
  std::string brackets(100000, '(');
  EXPECT_THAT(error_of_script("x $" + brackets), HasSubstr("nested more than"));
  std::string doubling = "A=aaaaaaaa\n";
  for (int i = 0; i < 60; ++i) doubling += "A=$A$A\n";
  EXPECT_THAT(error_of_script(doubling), HasSubstr("grow to more than 64 MiB"));
  std::string blocks;
  for (int i = 0; i < 1000; ++i) blocks += "if [ $a ]; then\n";
  EXPECT_THAT(error_of_script(blocks), HasSubstr("blocks stand one within the other"));
}

TEST(ShellWords, AMegabyteIsReadAtOnce) {
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_EQ(words_of("A=b\nx " + std::string(1 << 20, 'a')).size(), 2u);
  std::string many = "x";
  for (int i = 0; i < (1 << 18); ++i) many += " $A'";
  words_of("A=b\n" + many);
  EXPECT_THAT(words_of("A=$A\nB=$C\nC=$B\nx $A $B $C"), ElementsAre("x", "$A", "$C", "$C"));
  words_of(std::string(1 << 20, '\\'));
  words_of("x " + std::string(1 << 20, '$'));
  words_of(std::string(1 << 20, '('));
  words_of(std::string(1 << 20, '<'));
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(60));
}

}  // namespace
}  // namespace moetron
