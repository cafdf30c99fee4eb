#include "moetron/chat/jinja/parser.h"

#include <algorithm>
#include <initializer_list>

#include "moetron/chat/jinja/expression_parser.h"
#include "moetron/chat/jinja/text.h"

namespace moetron::jinja {
namespace {

using Names = std::initializer_list<std::string_view>;

class Parser {
 public:
  explicit Parser(std::string_view source) : tokens_(tokenize(source)), expressions_(tokens_) {}

  Template run() {
    Template result;
    result.body = parse_body({});
    result.marks_generations = marks_generations_;
    result.literals = texts_ + expressions_.literals();
    return result;
  }

 private:
  // Statements up to a tag of these names, which stays the current token; or to the end without
  // names.
  Statements parse_body(Names ends) {
    const ExpressionParser::Level level(expressions_);
    Statements body;
    while (!tokens_.is(TokenKind::kEnd)) {
      if (tokens_.is(TokenKind::kText)) {
        Statement& text = add(body, StatementKind::kText);
        text.text = tokens_.take().text;
        texts_ += text.text;
        texts_ += '\0';
      } else if (tokens_.is(TokenKind::kVariableBegin)) {
        tokens_.take();
        add(body, StatementKind::kPrint).value = expressions_.parse_tuple();
        tokens_.expect(TokenKind::kVariableEnd);
      } else {
        tokens_.expect(TokenKind::kBlockBegin);
        if (at_one_of(ends)) return body;
        parse_statement(body, ends);
        tokens_.expect(TokenKind::kBlockEnd);
      }
    }
    if (ends.size() > 0) fail_tag("Unexpected end of template.", ends);
    return body;
  }

  // The body of a block: behind its head, up to one of `ends`.
  Statements parse_block(Names ends) {
    tokens_.skip_operator(":");
    tokens_.expect(TokenKind::kBlockEnd);
    return parse_body(ends);
  }
  // The same, and its end is taken.
  Statements parse_whole_block(std::string_view end) {
    Statements body = parse_block({end});
    tokens_.take();
    return body;
  }

  Statement& add(Statements& body, StatementKind kind) const {
    body.emplace_back();
    body.back().kind = kind;
    body.back().line = tokens_.line();
    return body.back();
  }
  bool at_one_of(Names names) const {
    return std::any_of(names.begin(), names.end(),
                       [this](std::string_view name) { return tokens_.is_name(name); });
  }
  [[noreturn]] void fail_tag(std::string reason, Names ends) const {
    if (ends.size() > 0) {
      reason += " Jinja was looking for the following tags: ";
      for (const std::string_view& end : ends)
        reason += (&end == ends.begin() ? "'" : " or '") + std::string(end) + "'";
      reason += ".";
    }
    tokens_.fail(reason);
  }

  void parse_statement(Statements& body, Names ends) {
    if (!tokens_.is(TokenKind::kName)) tokens_.fail("tag name expected");
    if (tokens_.is_name("print")) {
      parse_print(body);
      return;
    }
    Statement& statement = add(body, StatementKind::kScope);
    const std::string tag = tokens_.take().text;
    if (tag == "if") {
      parse_if(statement);
    } else if (tag == "for") {
      parse_for(statement);
    } else if (tag == "set") {
      parse_set(statement);
    } else if (tag == "macro") {
      parse_macro(statement);
    } else if (tag == "call") {
      parse_call(statement);
    } else if (tag == "filter") {
      statement.kind = StatementKind::kFilterBlock;
      statement.filter = expressions_.parse_filter(nullptr, true);
      statement.body = parse_whole_block("endfilter");
    } else if (tag == "with") {
      parse_with(statement);
    } else if (tag == "generation") {
      statement.kind = StatementKind::kGeneration;
      marks_generations_ = true;
      statement.body = parse_whole_block("endgeneration");
    } else if (tag == "break" || tag == "continue") {
      if (loop_depth_ == 0) tokens_.fail("'" + tag + "' outside loop");
      statement.kind = tag == "break" ? StatementKind::kBreak : StatementKind::kContinue;
    } else {
      for (const std::string_view name :
           {"include", "import", "from", "extends", "block", "autoescape"})
        if (tag == name) tokens_.fail("the tag {% " + tag + " %} is not supported");
      fail_tag("Encountered unknown tag " + quote_text(tag) + ".", ends);
    }
  }

  void parse_print(Statements& body) {
    tokens_.take();
    while (!tokens_.is(TokenKind::kBlockEnd)) {
      Statement& print = add(body, StatementKind::kPrint);
      print.value = expressions_.parse_expression();
      if (!tokens_.is(TokenKind::kBlockEnd)) tokens_.expect_operator(",");
    }
  }

  void parse_if(Statement& statement) {
    statement.kind = StatementKind::kIf;
    while (true) {
      Branch branch;
      branch.condition = expressions_.parse_tuple(false);
      branch.body = parse_block({"elif", "else", "endif"});
      statement.branches.push_back(std::move(branch));
      const Token end = tokens_.take();
      if (end.text == "elif") continue;
      if (end.text == "else") statement.branches.push_back({nullptr, parse_whole_block("endif")});
      return;
    }
  }

  // jinja2 lets nothing inside a loop assign to the name loop.
  void check_loop_name(const Expression& target) const {
    if (target.kind == ExpressionKind::kName && target.name == "loop")
      tokens_.fail("Can't assign to special loop variable in for-loop target");
    for (const ExpressionPtr& part : target.parts) check_loop_name(*part);
  }

  void parse_for(Statement& statement) {
    statement.kind = StatementKind::kFor;
    statement.target = expressions_.parse_target(false, "in");
    check_loop_name(*statement.target);
    tokens_.expect_name("in");
    statement.value = expressions_.parse_tuple(false, "recursive");
    if (tokens_.skip_name("if")) statement.condition = expressions_.parse_expression();
    statement.is_recursive = tokens_.skip_name("recursive");
    ++loop_depth_;
    statement.body = parse_block({"endfor", "else"});
    --loop_depth_;
    if (tokens_.take().text == "else") statement.other = parse_whole_block("endfor");
  }

  void parse_set(Statement& statement) {
    statement.target = expressions_.parse_target(true);
    if (loop_depth_ > 0) check_loop_name(*statement.target);
    if (tokens_.skip_operator("=")) {
      statement.kind = StatementKind::kSet;
      statement.value = expressions_.parse_tuple();
      return;
    }
    statement.kind = StatementKind::kSetBlock;
    statement.filter = expressions_.parse_filter(nullptr);
    statement.body = parse_whole_block("endset");
  }

  void parse_with(Statement& statement) {
    statement.kind = StatementKind::kWith;
    while (!tokens_.is(TokenKind::kBlockEnd)) {
      if (!statement.targets.empty()) tokens_.expect_operator(",");
      statement.targets.push_back(expressions_.parse_target(false));
      tokens_.expect_operator("=");
      statement.values.push_back(expressions_.parse_expression());
    }
    statement.body = parse_whole_block("endwith");
  }

  void parse_signature(MacroNode& macro) {
    tokens_.expect_operator("(");
    while (!tokens_.is_operator(")")) {
      if (!macro.parameters.empty()) tokens_.expect_operator(",");
      macro.parameters.push_back(expressions_.parse_target_name());
      if (tokens_.skip_operator("=")) {
        macro.defaults.push_back(expressions_.parse_expression());
      } else if (!macro.defaults.empty()) {
        tokens_.fail("non-default argument follows default argument");
      }
    }
    tokens_.expect_operator(")");
  }

  void parse_macro_body(MacroNode& macro, std::string_view end) {
    const ExpressionParser::SpecialNames before = expressions_.special_names();
    const int outer_loops = std::exchange(loop_depth_, 0);
    macro.body = parse_whole_block(end);
    loop_depth_ = outer_loops;
    const ExpressionParser::SpecialNames& after = expressions_.special_names();
    const auto is_parameter = [&macro](std::string_view name) {
      return std::find(macro.parameters.begin(), macro.parameters.end(), name) !=
             macro.parameters.end();
    };
    macro.reads_caller = after.caller > before.caller;
    macro.reads_kwargs = after.kwargs > before.kwargs && !is_parameter("kwargs");
    macro.reads_varargs = after.varargs > before.varargs && !is_parameter("varargs");
    if (macro.reads_caller && is_parameter("caller")) {
      const auto place = std::find(macro.parameters.begin(), macro.parameters.end(), "caller");
      const auto behind = static_cast<size_t>(macro.parameters.end() - place);
      if (behind > macro.defaults.size())
        tokens_.fail(
            "When defining macros or call blocks the special \"caller\" argument must be omitted "
            "or be "
            "given a default.");
      macro.reads_caller = false;
    }
  }

  void parse_macro(Statement& statement) {
    statement.kind = StatementKind::kMacro;
    statement.macro = std::make_shared<MacroNode>();
    statement.macro->name = expressions_.parse_target_name();
    parse_signature(*statement.macro);
    parse_macro_body(*statement.macro, "endmacro");
  }

  void parse_call(Statement& statement) {
    statement.kind = StatementKind::kCallBlock;
    statement.macro = std::make_shared<MacroNode>();
    if (tokens_.is_operator("(")) parse_signature(*statement.macro);
    statement.value = expressions_.parse_expression();
    if (statement.value->kind != ExpressionKind::kCall) tokens_.fail("expected call");
    parse_macro_body(*statement.macro, "endcall");
  }

  TokenStream tokens_;
  ExpressionParser expressions_;
  std::string texts_;
  bool marks_generations_ = false;
  int loop_depth_ = 0;
};

}  // namespace

Template parse(std::string_view source) {
  return Parser(source).run();
}

}  // namespace moetron::jinja
