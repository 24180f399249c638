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

recipe read(char const* folder, char const* name) {
  return parse_recipe(contents(fs::path(PRISMAQUANT_TEST_DATA) / "recipes" / folder / name));
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
  recipe const plan = read("good", "mixed.json");
  REQUIRE(plan.preset == "scale_sweep");
  REQUIRE(plan.price == "fisher-gram");
  REQUIRE(plan.units.front().scheme == "FP8_DYNAMIC");
  REQUIRE(plan.units.front().linears.size() == 3);
  REQUIRE(plan.units.back().price.has_value());
  REQUIRE(plan.notes.size() == 1);
}

TEST_CASE("a recipe of a preset that solves for data names the data") {
  REQUIRE(read("good", "solved_for_data.json").calibration.value().starts_with("sha256:"));
  REQUIRE_FALSE(read("good", "mixed.json").calibration.has_value());
}

TEST_CASE("a number without a fraction is an integer however it is written") {
  recipe const plan = read("good", "whole_numbers_written_as_floats.json");
  REQUIRE(plan.parameters == 65536);
  REQUIRE(plan.bytes == 36868);
  REQUIRE(plan.units.front().bytes == 36868);
}

TEST_CASE("an integer that a double cannot keep is refused, and so is one that would wrap around") {
  for (char const* name :
       {"bytes_no_integer_of_a_double.json", "bytes_wrap_to_minus_one.json", "bytes_negative.json"}) {
    CAPTURE(name);
    REQUIRE_THROWS_WITH(read("bad", name), "$.bytes: expected a whole number from 0 to 2^53 - 1");
  }
}

TEST_CASE("notes may be missing, and are then none") {
  REQUIRE(read("good", "without_writer_and_notes.json").notes.empty());
}
