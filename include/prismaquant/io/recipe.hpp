/// @file
/// The recipe: which scheme each unit gets, as JSON. The same document that the Python side writes as `Plan`.
#pragma once

#include <cmath>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "prismaquant/core/error.hpp"
#include "prismaquant/version.hpp"

namespace prismaquant {

inline constexpr std::string_view recipe_schema = "prismaquant.recipe/1";

/// One decision: all Linears of a unit get one scheme.
struct recipe_unit {
  std::string name;
  std::vector<std::string> linears;
  std::string scheme;
  std::int64_t bytes = 0;       ///< everything stored for the unit
  std::optional<double> price;  ///< expected KL divergence, nats per token; none where nothing was measured
};

/// A remark for people.
struct recipe_note {
  std::string code, unit, text;
};

/// A whole plan. Fields as in `prismaquant.Plan`.
struct recipe {
  std::string model;
  std::string preset;
  std::optional<std::string> price;
  std::optional<std::int64_t> budget;
  std::int64_t parameters = 0;
  std::int64_t bytes = 0;
  std::optional<double> predicted_kl;
  std::optional<double> lower_bound;
  std::vector<recipe_unit> units;
  std::optional<std::string> calibration;  ///< what the preset solved for; none for data-free presets
  std::vector<recipe_note> notes;
};

namespace detail {

using json = nlohmann::ordered_json;

/// Reads typed fields of one JSON object; every error starts with the path inside the document.
class field_reader {
 public:
  field_reader(json const& object, std::string path) : object_(object), path_(std::move(path)) {
    if (!object_.is_object()) fail(path_, "an object");
  }

  void read(char const* name, std::string& out) const {
    out = required(name, &json::is_string, "a string").get<std::string>();
  }
  /// A whole number, however it is written: 2, 2.0, 2e0. The range is that of integers that every reader of JSON keeps.
  void read(char const* name, std::int64_t& out, std::int64_t least = 0) const {
    auto const value = required(name, &json::is_number, "a whole number").get<double>();
    if (!(value >= static_cast<double>(least) && value <= 9007199254740991.0) || value != std::floor(value)) {
      fail(path_ + "." + name, "a whole number from " + std::to_string(least) + " to 2^53 - 1");
    }
    out = static_cast<std::int64_t>(value);
  }
  void read(char const* name, double& out) const { out = required(name, &json::is_number, "a number").get<double>(); }

  template <class T>
  void read(char const* name, std::optional<T>& out) const {
    if (field(name).is_null()) {
      out.reset();
    } else {
      read(name, out.emplace());
    }
  }

  void read(char const* name, std::vector<std::string>& out) const {
    each(name, [&](json const& element, std::string const& path) {
      if (!element.is_string()) fail(path, "a string");
      out.push_back(element.get<std::string>());
    });
  }

  bool has(char const* name) const { return object_.contains(name); }

  /// Calls `visit(element, path)` for each element of the array `name`.
  template <class Visit>
  void each(char const* name, Visit&& visit) const {
    auto const& array = required(name, &json::is_array, "an array");
    for (std::size_t i = 0; i < array.size(); ++i) visit(array[i], path_ + "." + name + "[" + std::to_string(i) + "]");
  }

 private:
  json const& field(char const* name) const {
    auto const found = object_.find(name);
    if (found == object_.end()) throw parse_error(path_ + ": the field '" + name + "' is missing");
    return *found;
  }
  json const& required(char const* name, bool (json::*is)() const noexcept, char const* expected) const {
    json const& value = field(name);
    if (!(value.*is)()) fail(path_ + "." + name, expected);
    return value;
  }
  [[noreturn]] static void fail(std::string const& path, std::string const& expected) {
    throw parse_error(path + ": expected " + expected);
  }

  json const& object_;
  std::string path_;
};

template <class T>
json nullable(std::optional<T> const& value) {
  return value ? json(*value) : json(nullptr);
}

}  // namespace detail

/// Reads a recipe document. Fields that it does not know are ignored; `calibration` and `notes` may be missing.
/// @throws parse_error: not JSON, another schema, or a field that is missing or of the wrong type (its path is named).
inline recipe parse_recipe(std::string_view text) {
  auto const document = detail::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (document.is_discarded()) throw parse_error("$: the recipe is not a JSON document");
  detail::field_reader const root(document, "$");
  std::string schema;
  root.read("schema", schema);
  if (schema != recipe_schema) {
    throw parse_error("$.schema: '" + schema + "' is not the schema '" + std::string(recipe_schema) +
                      "' that this release reads");
  }
  recipe result;
  root.read("model", result.model);
  root.read("preset", result.preset);
  root.read("price", result.price);
  root.read("budget", result.budget);
  root.read("parameters", result.parameters, /*least=*/1);
  root.read("bytes", result.bytes);
  root.read("predicted_kl", result.predicted_kl);
  root.read("lower_bound", result.lower_bound);
  root.each("units", [&](detail::json const& element, std::string const& path) {
    detail::field_reader const fields(element, path);
    auto& unit = result.units.emplace_back();
    fields.read("name", unit.name);
    fields.read("linears", unit.linears);
    fields.read("scheme", unit.scheme);
    fields.read("bytes", unit.bytes);
    fields.read("price", unit.price);
  });
  if (root.has("calibration")) root.read("calibration", result.calibration);
  if (root.has("notes")) {
    root.each("notes", [&](detail::json const& element, std::string const& path) {
      detail::field_reader const fields(element, path);
      auto& note = result.notes.emplace_back();
      fields.read("code", note.code);
      fields.read("unit", note.unit);
      fields.read("text", note.text);
    });
  }
  return result;
}

/// Writes a recipe document that `parse_recipe` and the Python reader accept.
inline std::string to_json(recipe const& plan) {
  detail::json units = detail::json::array();
  for (auto const& unit : plan.units) {
    units.push_back({{"name", unit.name},
                     {"linears", unit.linears},
                     {"scheme", unit.scheme},
                     {"bytes", unit.bytes},
                     {"price", detail::nullable(unit.price)}});
  }
  detail::json notes = detail::json::array();
  for (auto const& note : plan.notes) notes.push_back({{"code", note.code}, {"unit", note.unit}, {"text", note.text}});
  detail::json const document = {{"schema", recipe_schema},
                                 {"writer", {{"prismaquant", PRISMAQUANT_VERSION}}},
                                 {"model", plan.model},
                                 {"preset", plan.preset},
                                 {"price", detail::nullable(plan.price)},
                                 {"budget", detail::nullable(plan.budget)},
                                 {"parameters", plan.parameters},
                                 {"bytes", plan.bytes},
                                 {"predicted_kl", detail::nullable(plan.predicted_kl)},
                                 {"lower_bound", detail::nullable(plan.lower_bound)},
                                 {"units", std::move(units)},
                                 {"calibration", detail::nullable(plan.calibration)},
                                 {"notes", std::move(notes)}};
  return document.dump(1) + "\n";
}

}  // namespace prismaquant
