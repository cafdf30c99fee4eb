#include "moetron/chat/jinja/format.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>

#include "moetron/chat/jinja/text.h"
#include "moetron/tokenizer/unicode.h"

namespace moetron::jinja {
namespace {

class Writer {
 public:
  explicit Writer(Budget& budget) : budget_(budget) {}

  void write(const Value& value) {
    const Budget::Level level(budget_);
    budget_.step();
    if (!value.is_object()) {
      out_ += scalar(value);
      return;
    }
    switch (value.object().kind) {
      case Kind::kUndefined:
        out_ += "Undefined";
        break;
      case Kind::kString:
        write_string(value.as<String>());
        break;
      case Kind::kList:
        write_items(value.as<Sequence>().items, "[", "]");
        break;
      case Kind::kTuple:
        write_items(value.as<Sequence>().items, "(",
                    value.as<Sequence>().items.size() == 1 ? ",)" : ")");
        break;
      case Kind::kDict:
        write_dict(value.as<Dict>());
        break;
      case Kind::kNamespace:
        out_ += "<Namespace ";
        write_dict(value.as<Dict>());
        out_ += '>';
        break;
      case Kind::kRange:
        write_range(value.as<Range>());
        break;
      case Kind::kView:
        write_view(value.as<View>());
        break;
      default:
        // Python would tell an address, which is never meant.
        fail("a ", type_name(value), " is printed");
    }
  }
  std::string take() {
    budget_.allocate(out_.size());
    return std::move(out_);
  }

  static std::string scalar(const Value& value) {
    if (value.is_none()) return "None";
    if (value.is_bool()) return value.as_bool() ? "True" : "False";
    if (value.is_int()) return std::to_string(value.as_int());
    return float_text(value.as_float());
  }

 private:
  void write_string(const String& string) {
    budget_.allocate(string.text.size());
    out_ += string.is_markup ? "Markup(" + quote_text(string.text) + ")" : quote_text(string.text);
  }
  void write_items(const Values& items, const char* open, const char* close) {
    out_ += open;
    for (size_t i = 0; i < items.size(); ++i) {
      if (i > 0) out_ += ", ";
      write(items[i]);
    }
    out_ += close;
  }
  void write_dict(const Dict& dict) {
    out_ += '{';
    for (size_t i = 0; i < dict.items.size(); ++i) {
      if (i > 0) out_ += ", ";
      write(dict.items[i].first);
      out_ += ": ";
      write(dict.items[i].second);
    }
    out_ += '}';
  }
  void write_range(const Range& range) {
    out_ += "range(" + std::to_string(range.start) + ", " + std::to_string(range.stop);
    if (range.step != 1) out_ += ", " + std::to_string(range.step);
    out_ += ')';
  }
  void write_view(const View& view) {
    const auto& items = view.dict.as<Dict>().items;
    out_ += view.view == ViewKind::kKeys     ? "dict_keys(["
            : view.view == ViewKind::kValues ? "dict_values(["
                                             : "dict_items([";
    for (size_t i = 0; i < items.size(); ++i) {
      if (i > 0) out_ += ", ";
      if (view.view == ViewKind::kItems) out_ += '(';
      if (view.view != ViewKind::kValues) write(items[i].first);
      if (view.view == ViewKind::kItems) out_ += ", ";
      if (view.view != ViewKind::kKeys) write(items[i].second);
      if (view.view == ViewKind::kItems) out_ += ')';
    }
    out_ += "])";
  }

  Budget& budget_;
  std::string out_;
};

class JsonWriter {
 public:
  JsonWriter(const JsonStyle& style, Budget& budget) : style_(style), budget_(budget) {}

  void write(const Value& value, int depth) {
    const Budget::Level level(budget_);
    budget_.step();
    if (value.is_string()) {
      write_string(value.text());
    } else if (!value.is_object()) {
      out_ += scalar(value);
    } else if (value.is(Kind::kList) || value.is(Kind::kTuple)) {
      write_items(value.as<Sequence>().items, depth);
    } else if (value.is(Kind::kDict)) {
      write_dict(value.as<Dict>(), depth);
    } else {
      fail("Object of type ", type_name(value), " is not JSON serializable");
    }
  }
  std::string take() {
    budget_.allocate(out_.size());
    return std::move(out_);
  }

 private:
  static std::string scalar(const Value& value) {
    if (value.is_none()) return "null";
    if (value.is_bool()) return value.as_bool() ? "true" : "false";
    if (value.is_int()) return std::to_string(value.as_int());
    const double number = value.as_float();
    if (std::isnan(number)) return "NaN";
    if (std::isinf(number)) return number > 0 ? "Infinity" : "-Infinity";
    return float_text(number);
  }

  void write_escape(char32_t unit) {
    char buffer[16];
    std::snprintf(buffer, sizeof buffer, "\\u%04x", static_cast<unsigned>(unit));
    out_ += buffer;
  }
  void write_string(const std::string& text) {
    budget_.allocate(text.size());
    out_ += '"';
    for (size_t at = 0; at < text.size();) {
      const Character character = decode_utf8(text.data() + at);
      write_character(character.value, std::string_view(text).substr(at, character.length));
      at += character.length;
    }
    out_ += '"';
  }
  void write_character(char32_t c, std::string_view bytes) {
    static constexpr std::string_view kNamed = "\"\\\n\r\t\f\b";
    static constexpr std::string_view kNames = "\"\\nrtfb";
    const size_t named = c < 0x80 ? kNamed.find(static_cast<char>(c)) : std::string_view::npos;
    if (named != std::string_view::npos) {
      out_ += '\\';
      out_ += kNames[named];
    } else if (c < 0x20 || (style_.ensure_ascii && c > 0x7E && c < 0x10000)) {
      write_escape(c);
    } else if (style_.ensure_ascii && c >= 0x10000) {
      write_escape(0xD800 + ((c - 0x10000) >> 10));
      write_escape(0xDC00 + ((c - 0x10000) & 0x3FF));
    } else {
      out_ += bytes;
    }
  }
  void new_line(int depth) {
    if (!style_.indent) return;
    out_ += '\n';
    for (int i = 0; i < depth; ++i) out_ += *style_.indent;
    budget_.allocate(style_.indent->size() * static_cast<size_t>(depth));
  }
  void write_items(const Values& items, int depth) {
    if (items.empty()) {
      out_ += "[]";
      return;
    }
    out_ += '[';
    for (size_t i = 0; i < items.size(); ++i) {
      if (i > 0) out_ += style_.item_separator;
      new_line(depth + 1);
      write(items[i], depth + 1);
    }
    new_line(depth);
    out_ += ']';
  }
  static std::string key_text(const Value& key) {
    if (key.is_string()) return key.text();
    if (!key.is_object()) return scalar(key);
    fail("keys must be str, int, float, bool or None, not ", type_name(key));
  }
  void write_dict(const Dict& dict, int depth) {
    if (dict.items.empty()) {
      out_ += "{}";
      return;
    }
    std::vector<const std::pair<Value, Value>*> items;
    for (const auto& item : dict.items) items.push_back(&item);
    if (style_.sort_keys) {
      for (const auto* item : items)
        if (!item->first.is_string())
          fail("'<' not supported between instances of a key and another");
      std::stable_sort(items.begin(), items.end(), [](const auto* one, const auto* other) {
        return one->first.text() < other->first.text();
      });
    }
    out_ += '{';
    for (size_t i = 0; i < items.size(); ++i) {
      if (i > 0) out_ += style_.item_separator;
      new_line(depth + 1);
      write_string(key_text(items[i]->first));
      out_ += style_.key_separator;
      write(items[i]->second, depth + 1);
    }
    new_line(depth);
    out_ += '}';
  }

  const JsonStyle& style_;
  Budget& budget_;
  std::string out_;
};

}  // namespace

std::string float_text(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  char buffer[64];
  const auto end =
      std::to_chars(buffer, buffer + sizeof buffer, value, std::chars_format::scientific).ptr;
  // "-d.ddde+XX": the shortest digits that read back as the value.
  const std::string text(buffer, end);
  const size_t mark = text.find('e');
  const int exponent = std::stoi(text.substr(mark + 1));
  if (exponent >= -4 && exponent < 16) {
    const auto fixed =
        std::to_chars(buffer, buffer + sizeof buffer, value, std::chars_format::fixed).ptr;
    std::string plain(buffer, fixed);
    return plain.find('.') == std::string::npos ? plain + ".0" : plain;
  }
  std::string digits = std::to_string(std::abs(exponent));
  if (digits.size() < 2) digits.insert(0, "0");
  return text.substr(0, mark) + (exponent < 0 ? "e-" : "e+") + digits;
}

std::string to_text(const Value& value, Budget& budget) {
  if (value.is_string()) {
    budget.allocate(value.text().size());
    return value.text();
  }
  if (value.is_undefined()) return {};
  return representation(value, budget);
}

std::string representation(const Value& value, Budget& budget) {
  Writer writer(budget);
  writer.write(value);
  return writer.take();
}

std::string to_json(const Value& value, const JsonStyle& style, Budget& budget) {
  JsonWriter writer(style, budget);
  writer.write(value, 0);
  return writer.take();
}

}  // namespace moetron::jinja
