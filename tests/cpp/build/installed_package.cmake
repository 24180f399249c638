# Installs to a prefix and builds examples/cpp against it with find_package, as another engine would: first with nothing
# but the headers, then with the kernels too.
function(run)
  execute_process(COMMAND ${ARGV} RESULT_VARIABLE code OUTPUT_VARIABLE output ERROR_VARIABLE output)
  if(code)
    message(FATAL_ERROR "${ARGV} failed:\n${output}")
  endif()
  set(output "${output}" PARENT_SCOPE)
endfunction()

function(require text)
  if(NOT output MATCHES "${text}")
    message(FATAL_ERROR "expected '${text}' in:\n${output}")
  endif()
endfunction()

set(configure ${CMAKE_COMMAND} -S ${SOURCE}/examples/cpp -B ${WORK}/build -G ${GENERATOR} -DCMAKE_MAKE_PROGRAM=${MAKE_PROGRAM}
              -DCMAKE_PREFIX_PATH=${WORK}/prefix -DCMAKE_BUILD_TYPE=Release "-DCMAKE_CXX_FLAGS=${FLAGS}")
file(REMOVE_RECURSE ${WORK})
run(${CMAKE_COMMAND} --install ${BUILD} --prefix ${WORK}/prefix --component headers)
execute_process(COMMAND ${configure} -DPRISMAQUANT_EXAMPLES_COMPONENTS=kernels RESULT_VARIABLE code
                OUTPUT_VARIABLE output ERROR_VARIABLE output)
require("has no.component.'kernels'") # CMake breaks the line where it likes
run(${configure} -DPRISMAQUANT_EXAMPLES_COMPONENTS=)
run(${CMAKE_COMMAND} --build ${WORK}/build)
run(${CMAKE_CTEST_COMMAND} --test-dir ${WORK}/build --output-on-failure)
require("example_raw_pointers")

if(KERNELS)
  run(${CMAKE_COMMAND} --install ${BUILD} --prefix ${WORK}/prefix --component kernels)
  run(${configure} -DPRISMAQUANT_EXAMPLES_COMPONENTS=kernels)
  run(${CMAKE_COMMAND} --build ${WORK}/build)
  run(${CMAKE_CTEST_COMMAND} --test-dir ${WORK}/build --verbose -R instruction_set)
  require("in use: [a-z0-9_]+; available: scalar")
endif()
