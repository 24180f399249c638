// The same documents are read by the Python reader and by jsonschema (tests/python/files/test_recipes_three_judges.py):
// all three must agree on what is good and what is bad.
#include <filesystem>
#include <fstream>
#include <iterator>

#include "prismaquant/io/recipe.hpp"
#include "support/catch.hpp"

using namespace prismaquant;
namespace fs = std::filesystem;

namespace {

std::string contents(fs::path const& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::vector<fs::path> documents(char const* folder) {
  std::vector<fs::path> found;
  for (auto const& entry : fs::directory_iterator(fs::path(PRISMAQUANT_TEST_DATA) / "recipes" / folder))
    found.push_back(entry.path());
  REQUIRE_FALSE(found.empty());
  return found;
}

}  // namespace

TEST_CASE("good recipes are read and survive a round trip") {
  for (auto const& path : documents("good")) {
    CAPTURE(path.string());
    recipe const plan = parse_recipe(contents(path));
    REQUIRE_FALSE(plan.units.empty());
    std::string const text = to_json(plan);
    REQUIRE(to_json(parse_recipe(text)) == text);
  }
}

TEST_CASE("bad recipes are refused with the place inside the document") {
  for (auto const& path : documents("bad")) {
    CAPTURE(path.string());
    REQUIRE_THROWS_AS(parse_recipe(contents(path)), parse_error);
    REQUIRE_THROWS_WITH(parse_recipe(contents(path)), Catch::Matchers::StartsWith("$"));
  }
}

TEST_CASE("fields arrive where they belong") {
  recipe const plan = parse_recipe(contents(fs::path(PRISMAQUANT_TEST_DATA) / "recipes" / "good" / "mixed.json"));
  REQUIRE(plan.preset == "scale_sweep");
  REQUIRE(plan.price == "fisher-gram");
  REQUIRE(plan.units.front().scheme == "FP8_DYNAMIC");
  REQUIRE(plan.units.front().linears.size() == 3);
  REQUIRE(plan.units.back().price.has_value());
  REQUIRE(plan.notes.size() == 1);
}
