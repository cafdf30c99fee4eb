#include "moetron/data/clean_text.h"

#include <random>

#include <gtest/gtest.h>

#include "moetron/tokenizer/unicode.h"

namespace moetron {
namespace {

struct Case {
  const char* rule;
  std::string text, cleaned;
};

TEST(CleanText, FollowsEachRule) {
  for (const Case& c : {
           Case{"line ends",
                "a\r\nb\rc\xc2\x85"
                "d\xe2\x80\xa8"
                "e\xe2\x80\xa9"
                "f",
                "a\nb\nc\nd\ne\nf"},
           {"control characters", std::string("a\0b\x07\x1b\x7f\xc2\x80 c", 10), "ab c"},
           {"invisible characters", "a\xc2\xad\xe2\x80\x8b\xe2\x81\xa0\xef\xbb\xbf\xef\xbf\xbd z",
            "a z"},
           {"joiners belong to words", "\xe0\xa4\x95\xe2\x80\x8d\xe0\xa4\xb7",
            "\xe0\xa4\x95\xe2\x80\x8d\xe0\xa4\xb7"},
           {"addresses", "see https://a.b/c?d=e#f, or HTTP://X and ftp://y/z.", "see or and"},
           {"addresses end where other text begins",
            "\xe8\xa7\x81http://a.cn/x\xe3\x80\x82"
            "b",
            "\xe8\xa7\x81\xe3\x80\x82"
            "b"},
           {"addresses in marks", "<a href=\"http://x/y\">z</a>", "<a href=\"\">z</a>"},
           {"a scheme alone is none", "http:// and shttp://x", "http:// and shttp://x"},
           {"blanks", "a \t\xc2\xa0\xe3\x80\x80\xe2\x80\x89z", "a z"},
           {"blanks of lines", "  a  \n\t b \n", "a\nb"},
           {"empty lines", "\n\n a\n \n\n\nb\n\n", "a\n\nb"},
           {"nothing is left", " \xe2\x80\x8b\n http://x ", ""},
           {"nothing to do", "Text, 123.\n\n\xe6\x96\x87\xe5\xad\x97\xef\xbc\x8c\xf0\x9f\x98\x80",
            "Text, 123.\n\n\xe6\x96\x87\xe5\xad\x97\xef\xbc\x8c\xf0\x9f\x98\x80"},
           {"nothing", "", ""},
       }) {
    EXPECT_EQ(clean_text(c.text), c.cleaned) << c.rule;
  }
}

// Parts that rules meet in, in any order: what is cleaned is text, and clean.
TEST(CleanText, OfHostileTextIsCleanText) {
  const std::vector<std::string> parts = {"http://",
                                          "https://",
                                          "ftp://",
                                          "ht",
                                          "tp://x",
                                          "\"",
                                          "<",
                                          " ",
                                          "\n",
                                          "\r",
                                          "\t",
                                          std::string(1, '\0'),
                                          "a",
                                          "/",
                                          "\xe2\x80\x8b",
                                          "\xef\xbf\xbd",
                                          "\xe3\x80\x80",
                                          "\xe4\xb8\xad",
                                          "\xc2\x85",
                                          "\xf4\x8f\xbf\xbf",
                                          "\xe2\x80\x8d",
                                          "://",
                                          "\x7f",
                                          "h"};
  std::mt19937 random(1);
  for (int trial = 0; trial < 20000; ++trial) {
    std::string text;
    for (size_t length = random() % 12; length > 0; --length)
      text += parts[random() % parts.size()];
    const std::string cleaned = clean_text(text);
    ASSERT_TRUE(is_utf8(cleaned)) << text;
    ASSERT_EQ(clean_text(cleaned), cleaned) << text;
    ASSERT_LE(cleaned.size(), text.size()) << text;
  }
  // In time that grows with the text alone.
  std::string slow;
  for (int i = 0; i < 200000; ++i) slow += "http:/";
  EXPECT_EQ(clean_text(slow), slow);
  EXPECT_EQ(clean_text("http://" + std::string(5000000, 'a')), "");
  EXPECT_EQ(clean_text(std::string(5000000, '\n')), "");
}

}  // namespace
}  // namespace moetron
