#include "stage_arg.hpp"

#include <pybind11/stl.h>

#include <array>
#include <optional>
#include <string_view>
#include <variant>

#include "prismaquant/core/error.hpp"

namespace prismaquant::bindings {
namespace py = pybind11;

namespace {

// Every option of a solver. A structured binding names all members, so that none can be forgotten here.
template <class Visitor>
void for_each_option(rtn&, Visitor&&) {}
template <class Visitor>
void for_each_option(scale_sweep& s, Visitor&& visit) {
  auto& [use_gram_diagonal, four_over_six] = s;
  visit("use_gram_diagonal", use_gram_diagonal);
  visit("four_over_six", four_over_six);
}
template <class Visitor>
void for_each_option(shift& s, Visitor&& visit) {
  auto& [strength, shrinkage] = s;
  visit("strength", strength);
  visit("shrinkage", shrinkage);
}
template <class Visitor>
void for_each_option(gptq& s, Visitor&& visit) {
  auto& [order, scales] = s;
  visit("order", order);
  visit("scales", scales);
}
template <class Visitor>
void for_each_option(coordinate_descent& s, Visitor&& visit) {
  auto& [sweeps, refit_scales] = s;
  visit("sweeps", sweeps);
  visit("refit_scales", refit_scales);
}
template <class Visitor>
void for_each_option(two_sided& s, Visitor&& visit) {
  auto& [block, passes, inner_sweeps] = s;
  visit("block", block);
  visit("passes", passes);
  visit("inner_sweeps", inner_sweeps);
}

constexpr std::array column_orders{std::pair{std::string_view("automatic"), column_order::automatic},
                                   std::pair{std::string_view("natural"), column_order::natural},
                                   std::pair{std::string_view("activation"), column_order::activation},
                                   std::pair{std::string_view("group_activation"), column_order::group_activation}};
constexpr std::array scale_choices{std::pair{std::string_view("automatic"), scale_choice::automatic},
                                   std::pair{std::string_view("in_loop"), scale_choice::in_loop},
                                   std::pair{std::string_view("given"), scale_choice::given}};
constexpr auto const& spellings(column_order) { return column_orders; }
constexpr auto const& spellings(scale_choice) { return scale_choices; }

[[noreturn]] void reject(std::string const& option, py::handle value, std::string const& expected) {
  throw format_error(option + " is " + std::string(py::repr(value)) + ", expected " + expected);
}

void assign(std::string const& option, py::handle value, bool& member) {
  if (!py::isinstance<py::bool_>(value)) reject(option, value, "True or False");
  member = value.cast<bool>();
}

void assign(std::string const& option, py::handle value, std::size_t& member) {
  bool const whole = PyIndex_Check(value.ptr()) != 0 && !py::isinstance<py::bool_>(value);
  Py_ssize_t const number = whole ? PyNumber_AsSsize_t(value.ptr(), nullptr) : -1;
  if (number < 0) reject(option, value, "a whole number, not negative");
  member = static_cast<std::size_t>(number);
}

void assign(std::string const& option, py::handle value, std::optional<float>& member) {
  if (value.is_none()) return member.reset();
  double const number = PyFloat_AsDouble(value.ptr());
  if (PyErr_Occurred() != nullptr) PyErr_Clear();
  if (!(number >= 0.0 && number <= 1e30)) reject(option, value, "a finite number, not negative, or None");
  member = static_cast<float>(number);
}

template <class Enum>
requires std::is_enum_v<Enum>
void assign(std::string const& option, py::handle value, Enum& member) {
  std::string known;
  for (auto const& [name, meaning] : spellings(member)) {
    if (py::isinstance<py::str>(value) && value.cast<std::string>() == name) {
      member = meaning;
      return;
    }
    known += (known.empty() ? "'" : ", '") + std::string(name) + "'";
  }
  reject(option, value, "one of " + known);
}

template <class T>
py::object to_python(T const& member) {
  if constexpr (std::is_enum_v<T>) {
    for (auto const& [name, meaning] : spellings(member)) {
      if (member == meaning) return py::str(std::string(name));
    }
    return py::none();
  } else {
    return py::cast(member);
  }
}

}  // namespace

stage stage_arg(stage_object const& given) {
  auto const& [name, options] = given;
  stage result = make_stage(name);
  std::size_t used = 0;
  std::visit(
      [&, &solver_name = name, &values = options](auto& solver) {
        for_each_option(solver, [&](char const* option, auto& member) {
          if (!values.contains(option)) return;
          ++used;
          assign(solver_name + ": option " + option, values[option], member);
        });
      },
      result);
  if (used != options.size()) throw format_error(name + " was given an option that it does not have");
  return result;
}

stage_object to_object(stage const& s) {
  record options;
  std::visit(
      [&](auto solver) {
        for_each_option(solver, [&](char const* option, auto& member) { options[option] = to_python(member); });
      },
      s);
  return {std::string(name_of(s)), options};
}

}  // namespace prismaquant::bindings
