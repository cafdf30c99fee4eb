// Expressions of templates, by jinja2's grammar.
#pragma once

#include <string>
#include <vector>

#include "moetron/chat/jinja/nodes.h"
#include "moetron/chat/jinja/token_stream.h"

namespace moetron::jinja {

class ExpressionParser {
 public:
  explicit ExpressionParser(TokenStream& tokens) : tokens_(tokens) {}

  ExpressionPtr parse_expression(bool with_conditional = true);
  // An expression, or several with commas as a tuple. `end_name`: a name that ends it, too ("in").
  ExpressionPtr parse_tuple(bool with_conditional = true, std::string_view end_name = {});
  // What set and for may assign to: names and tuples of names, and attributes of namespaces for
  // set.
  ExpressionPtr parse_target(bool with_namespace, std::string_view end_name = {});
  std::string parse_target_name();
  // One or more filters; `node` may be null. `is_inline`: the first has no | before it.
  ExpressionPtr parse_filter(ExpressionPtr node, bool is_inline = false);

  // What was read so far: strings with NULs between them, and how often the names caller, kwargs
  // and varargs were read.
  const std::string& literals() const { return literals_; }
  struct SpecialNames {
    int caller = 0;
    int kwargs = 0;
    int varargs = 0;
  };
  const SpecialNames& special_names() const { return special_names_; }

  // Held while something nested is read; refuses what is nested too deeply.
  class Level {
   public:
    explicit Level(ExpressionParser& parser);
    ~Level();
    Level(const Level&) = delete;
    Level& operator=(const Level&) = delete;
    void deepen();  // one more, until the end

   private:
    ExpressionParser& parser_;
    int depth_ = 0;
  };

 private:
  ExpressionPtr make(ExpressionKind kind, int line) const;
  ExpressionPtr parse_conditional();
  ExpressionPtr parse_or();
  ExpressionPtr parse_and();
  ExpressionPtr parse_not();
  ExpressionPtr parse_compare();
  ExpressionPtr parse_sum();
  ExpressionPtr parse_concat();
  ExpressionPtr parse_product();
  ExpressionPtr parse_power();
  ExpressionPtr parse_unary(bool with_filter = true);
  ExpressionPtr parse_primary(bool with_namespace = false);
  ExpressionPtr parse_parentheses();
  ExpressionPtr parse_list();
  ExpressionPtr parse_dict();
  ExpressionPtr parse_postfix(ExpressionPtr node, Level& level);
  ExpressionPtr parse_filters(ExpressionPtr node, Level& level);
  ExpressionPtr parse_subscript(ExpressionPtr node);
  ExpressionPtr parse_subscribed(bool& is_slice_out);
  ExpressionPtr parse_call(ExpressionPtr node);
  CallArguments parse_arguments();
  ExpressionPtr parse_test(ExpressionPtr node);
  bool at_tuple_end(std::string_view end_name) const;
  void check_target(const Expression& target) const;

  TokenStream& tokens_;
  std::string literals_;
  SpecialNames special_names_;
  int depth_ = 0;
};

}  // namespace moetron::jinja
