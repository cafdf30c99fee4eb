#include "moetron/chat/jinja/lexer.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "moetron/chat/jinja/text.h"
#include "moetron/tokenizer/unicode.h"

namespace moetron::jinja {
namespace {

// Line ends become LF, and one at the end is dropped.
std::string normalized(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] != '\r') {
      out += source[i];
      continue;
    }
    out += '\n';
    if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
  }
  if (out.ends_with('\n')) out.pop_back();
  return out;
}

bool is_digit(char byte) {
  return byte >= '0' && byte <= '9';
}

bool begins_name(char byte) {
  return (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') || byte == '_' ||
         static_cast<uint8_t>(byte) >= 0x80;
}

std::string without_underscores(std::string_view digits) {
  std::string out(digits);
  std::erase(out, '_');
  return out;
}

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(normalized(source)) {}

  std::vector<Token> run() {
    while (at_ < source_.size()) read_text();
    add(TokenKind::kEnd);
    return std::move(tokens_);
  }

 private:
  [[noreturn]] void fail(std::string reason) const {
    throw SyntaxFailure{line_, std::move(reason)};
  }
  bool sees(std::string_view what) const {
    return std::string_view(source_).substr(at_).starts_with(what);
  }
  char byte(size_t ahead = 0) const {
    return at_ + ahead < source_.size() ? source_[at_ + ahead] : '\0';
  }
  Token& add(TokenKind kind, std::string text = {}) {
    tokens_.push_back({.kind = kind, .line = line_, .text = std::move(text)});
    return tokens_.back();
  }
  void skip(size_t count) {
    line_ += static_cast<int>(std::count(source_.begin() + static_cast<std::ptrdiff_t>(at_),
                                         source_.begin() + static_cast<std::ptrdiff_t>(at_ + count),
                                         '\n'));
    if (count > 0) line_starts_ = source_[at_ + count - 1] == '\n';
    at_ += count;
  }
  void skip_spaces() {
    const std::string_view rest = std::string_view(source_).substr(at_);
    skip(rest.size() - strip(rest, Side::kLeft).size());
  }

  // Text up to the next tag, and the tag.
  void read_text() {
    size_t begin = at_;
    size_t tag = at_;
    for (;; ++tag) {
      tag = source_.find('{', tag);
      if (tag == std::string::npos) break;
      const char next = tag + 1 < source_.size() ? source_[tag + 1] : '\0';
      if (next == '%' || next == '{' || next == '#') break;
    }
    if (tag == std::string::npos) {
      const std::string text = source_.substr(begin);
      add(TokenKind::kText, text);
      skip(text.size());
      return;
    }
    const char sign = tag + 2 < source_.size() ? source_[tag + 2] : '\0';
    add_text(std::string_view(source_).substr(begin, tag - begin), sign, source_[tag + 1] == '{');
    const bool has_sign = sign == '-' || sign == '+';
    const char kind = source_[tag + 1];
    skip(tag - at_);
    if (kind == '%' && read_raw(has_sign)) return;
    skip(has_sign ? 3 : 2);
    if (kind == '#') {
      read_comment();
    } else if (kind == '%') {
      add(TokenKind::kBlockBegin);
      read_code(TokenKind::kBlockEnd);
    } else {
      add(TokenKind::kVariableBegin);
      read_code(TokenKind::kVariableEnd);
    }
  }

  // The text before a tag, less what the tag strips of it.
  void add_text(std::string_view text, char sign, bool is_variable) {
    if (sign == '-') {
      text = strip(text, Side::kRight);
    } else if (sign != '+' && !is_variable) {
      const size_t line_end = text.rfind('\n');
      const size_t begin = line_end == std::string_view::npos ? 0 : line_end + 1;
      if ((begin > 0 || line_starts_) && begin < text.size() &&
          strip(text.substr(begin), Side::kLeft).empty())
        text = text.substr(0, begin);
    }
    if (!text.empty()) add(TokenKind::kText, std::string(text));
  }

  // The end of a block or comment at `at_`: "%}" with its sign, and what it strips behind it. 0
  // where there is none.
  bool skip_end(std::string_view end, bool trims) {
    const bool has_sign = byte() == '-' || (byte() == '+' && trims);
    if (!std::string_view(source_).substr(at_ + (has_sign ? 1 : 0)).starts_with(end)) return false;
    const char sign = byte();
    skip(end.size() + (has_sign ? 1 : 0));
    if (sign == '-') {
      skip_spaces();
    } else if (sign != '+' && trims && byte() == '\n') {
      skip(1);
    }
    return true;
  }

  void read_comment() {
    while (!skip_end("#}", true)) {
      if (at_ >= source_.size()) fail("Missing end of comment tag");
      const size_t next = source_.find_first_of("-+#", at_ + 1);
      skip((next == std::string::npos ? source_.size() : next) - at_);
    }
  }

  // {% raw %} and all up to {% endraw %}; false where this is another block.
  bool read_raw(bool has_sign) {
    size_t at = at_ + (has_sign ? 3 : 2);
    const auto skip_to_word = [this](size_t from, std::string_view word) -> size_t {
      const std::string_view rest = std::string_view(source_).substr(from);
      const std::string_view stripped = strip(rest, Side::kLeft);
      if (!stripped.starts_with(word)) return 0;
      const std::string_view behind = strip(stripped.substr(word.size()), Side::kLeft);
      return source_.size() - behind.size();
    };
    at = skip_to_word(at, "raw");
    if (at == 0) return false;
    const bool strips = source_.compare(at, 3, "-%}") == 0;
    if (!strips && source_.compare(at, 2, "%}") != 0) return false;
    skip(at + (strips ? 3 : 2) - at_);
    if (strips) skip_spaces();
    for (size_t tag = source_.find("{%", at_); tag != std::string::npos;
         tag = source_.find("{%", tag + 1)) {
      const char sign = tag + 2 < source_.size() ? source_[tag + 2] : '\0';
      const size_t end = skip_to_word(tag + (sign == '-' || sign == '+' ? 3 : 2), "endraw");
      if (end == 0) continue;
      const size_t begin = at_;
      const size_t behind = end + (source_[end] == '-' || source_[end] == '+' ? 1 : 0);
      if (source_.compare(behind, 2, "%}") != 0) continue;
      add_text(std::string_view(source_).substr(begin, tag - begin), sign, false);
      skip(end - at_);
      skip_end("%}", true);
      return true;
    }
    fail("Missing end of raw directive");
  }

  void read_code(TokenKind end) {
    const std::string_view closing = end == TokenKind::kBlockEnd ? "%}" : "}}";
    std::string open;  // brackets
    while (true) {
      if (at_ >= source_.size()) return;  // the parser misses the end
      if (open.empty()) {
        const int line = line_;
        const size_t at = at_;
        if (skip_end(closing, end == TokenKind::kBlockEnd)) {
          tokens_.push_back({.kind = end, .line = line});
          return;
        }
        at_ = at;
      }
      const Character character = decode_utf8(source_.data() + at_);
      if (is_python_space(character.value)) {
        skip(character.length);
      } else if (is_digit(byte())) {
        read_number();
      } else if (begins_name(byte())) {
        read_name();
      } else if (byte() == '"' || byte() == '\'') {
        read_string();
      } else {
        read_operator(open);
      }
    }
  }

  void read_name() {
    size_t end = at_;
    while (end < source_.size() && (begins_name(source_[end]) || is_digit(source_[end]))) ++end;
    const std::string name = source_.substr(at_, end - at_);
    if (std::any_of(name.begin(), name.end(),
                    [](char c) { return static_cast<uint8_t>(c) >= 0x80; }))
      fail("names of other than ASCII letters are not supported");
    add(TokenKind::kName, name);
    skip(name.size());
  }

  // Digits with single underscores between them, from `at` on; the place behind them.
  size_t digits_end(size_t at) const {
    while (at < source_.size() &&
           (is_digit(source_[at]) || (source_[at] == '_' && at + 1 < source_.size() &&
                                      is_digit(source_[at + 1]) && is_digit(source_[at - 1]))))
      ++at;
    return at;
  }
  bool digit_at(size_t at) const { return at < source_.size() && is_digit(source_[at]); }

  void read_number() {
    size_t end = digits_end(at_);
    bool is_float = false;
    // A number behind a dot (a.0.1) is an integer of its own.
    const bool behind_dot = at_ > 0 && source_[at_ - 1] == '.';
    if (!behind_dot && end < source_.size() && source_[end] == '.' && digit_at(end + 1)) {
      is_float = true;
      end = digits_end(end + 1);
    }
    if (!behind_dot && end < source_.size() && (source_[end] == 'e' || source_[end] == 'E')) {
      const size_t sign =
          end + 1 < source_.size() && (source_[end + 1] == '-' || source_[end + 1] == '+') ? 1 : 0;
      if (digit_at(end + 1 + sign)) {
        is_float = true;
        end = digits_end(end + 1 + sign);
      }
    }
    const std::string text = without_underscores(std::string_view(source_).substr(at_, end - at_));
    if (is_float) {
      add(TokenKind::kFloat).number = std::strtod(text.c_str(), nullptr);
    } else {
      end = read_integer(text, end);
    }
    skip(end - at_);
  }

  // Adds an integer; 0x, 0o and 0b are read here. The place behind it.
  size_t read_integer(const std::string& text, size_t end) {
    int base = 10;
    std::string digits = text;
    if (text == "0" && end == at_ + 1 && end < source_.size()) {
      const char letter = static_cast<char>(source_[end] | 0x20);
      base = letter == 'x' ? 16 : letter == 'o' ? 8 : letter == 'b' ? 2 : 10;
    }
    if (base != 10) {
      size_t behind = end + 1;
      const auto is_of_base = [base](char c) {
        const char low = static_cast<char>(c | 0x20);
        return base == 16 ? is_digit(c) || (low >= 'a' && low <= 'f') : c >= '0' && c < '0' + base;
      };
      while (behind < source_.size() && (is_of_base(source_[behind]) ||
                                         (source_[behind] == '_' && behind + 1 < source_.size() &&
                                          is_of_base(source_[behind + 1]))))
        ++behind;
      if (behind == end + 1) {
        base = 10;
      } else {
        digits = without_underscores(std::string_view(source_).substr(end + 1, behind - end - 1));
        end = behind;
      }
    }
    if (base == 10 && digits.size() > 1 && digits[0] == '0' &&
        digits.find_first_not_of('0') != std::string::npos) {
      // 012 is 0 and then 12 for jinja2, which no expression allows.
      digits = "0";
      end = at_ + 1;
    }
    Token& token = add(TokenKind::kInteger);
    const auto result =
        std::from_chars(digits.data(), digits.data() + digits.size(), token.integer, base);
    if (result.ec != std::errc()) fail("an integer has more than 64 bits, which is not supported");
    return end;
  }

  void read_string() {
    const char quote = byte();
    size_t end = at_ + 1;
    while (end < source_.size() && source_[end] != quote) end += source_[end] == '\\' ? 2 : 1;
    if (end >= source_.size())
      fail("unexpected char " + quote_text(std::string(1, quote)) + " at " + std::to_string(at_));
    Token& token = add(TokenKind::kString);
    token.text = unescaped(std::string_view(source_).substr(at_ + 1, end - at_ - 1));
    skip(end + 1 - at_);
  }

  // Python's escapes: \n, \x41, \u00e9, \U0001f600, octal digits; an unknown one stays as it is.
  std::string unescaped(std::string_view text) const {
    std::string out;
    for (size_t i = 0; i < text.size(); ++i) {
      if (text[i] != '\\' || i + 1 == text.size()) {
        out += text[i];
        continue;
      }
      const char letter = text[++i];
      static constexpr std::string_view kLetters = "abfnrtv\\'\"";
      static constexpr std::string_view kMeanings = "\a\b\f\n\r\t\v\\'\"";
      const size_t known = kLetters.find(letter);
      if (known != std::string_view::npos) {
        out += kMeanings[known];
      } else if (letter == 'x' || letter == 'u' || letter == 'U') {
        i = append_coded(out, text, i, letter == 'x' ? 2 : letter == 'u' ? 4 : 8);
      } else if (letter >= '0' && letter <= '7') {
        char32_t value = 0;
        size_t used = 0;
        for (; used < 3 && i + used < text.size() && text[i + used] >= '0' && text[i + used] <= '7';
             ++used)
          value = value * 8 + static_cast<char32_t>(text[i + used] - '0');
        append_utf8(out, value);
        i += used - 1;
      } else if (letter == 'N') {
        fail("the escape \\N in a string is not supported");
      } else if (letter != '\n') {
        out += '\\';
        out += letter;
      }
    }
    return out;
  }
  // The character whose code follows the letter at `i`; the place of its last digit.
  size_t append_coded(std::string& out, std::string_view text, size_t i, size_t digits) const {
    uint32_t value = 0;
    const std::string_view code = text.substr(std::min(i + 1, text.size()), digits);
    const auto result = std::from_chars(code.data(), code.data() + code.size(), value, 16);
    if (code.size() != digits || result.ec != std::errc() || result.ptr != code.data() + digits)
      fail("truncated \\" + std::string(1, text[i]) + " escape");
    if (value > 0x10FFFF || (value >= 0xD800 && value < 0xE000))
      fail("a string has the escape of what is no character");
    append_utf8(out, value);
    return i + digits;
  }

  void read_operator(std::string& open) {
    static constexpr std::string_view kOperators[] = {
        "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[",
        "]",  "(",  ")",  "{",  "}",  ">",  "<", "=", ".", ":", "|", ",", ";"};
    for (const std::string_view text : kOperators) {
      if (!sees(text)) continue;
      if (text == "{" || text == "(" || text == "[") {
        open += text == "{" ? '}' : text == "(" ? ')' : ']';
      } else if (text == "}" || text == ")" || text == "]") {
        if (open.empty()) fail("unexpected '" + std::string(text) + "'");
        if (open.back() != text[0])
          fail("unexpected '" + std::string(text) + "', expected '" + open.back() + "'");
        open.pop_back();
      }
      add(TokenKind::kOperator, std::string(text));
      skip(text.size());
      return;
    }
    const size_t length = decode_utf8(source_.data() + at_).length;
    fail("unexpected char " + quote_text(source_.substr(at_, length)) + " at " +
         std::to_string(at_));
  }

  std::string source_;
  size_t at_ = 0;
  int line_ = 1;
  bool line_starts_ = true;  // what was read last ends a line
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> tokenize(std::string_view source) {
  return Lexer(source).run();
}

}  // namespace moetron::jinja
