#Reads the symbols of kernel objects with nm.What an instruction set's translation unit defines must be named after
#it : anything else could be the copy that the linker keeps for the whole program, and would crash older processors.
#What it calls must be plain C memory functions.
foreach (object IN LISTS OBJECTS)
execute_process(COMMAND ${NM} - C ${object} OUTPUT_VARIABLE symbols RESULT_VARIABLE code) if (code)
    message(FATAL_ERROR "${NM} ${object} failed") endif() string(REPLACE
                                                                 ";"
                                                                 "," symbols "${symbols}") string(REPLACE
                                                                                                  "\n"
                                                                                                  ";" lines
                                                                                                  "${symbols}")
        set(kernels 0) foreach (line IN LISTS lines) if (line MATCHES " U (.*)$") if (
            NOT CMAKE_MATCH_1 MATCHES "^(memcpy|memset|memmove|_GLOBAL_OFFSET_TABLE_|__stack_chk_fail)$")
            message(FATAL_ERROR "${object} needs ${CMAKE_MATCH_1}") endif()
                elseif(line MATCHES " [A-Zuvw] (.*)$") if (NOT CMAKE_MATCH_1 MATCHES "prismaquant::isa_")
                    message(FATAL_ERROR "${object} defines ${CMAKE_MATCH_1}, which does not name the instruction set")
                        endif() math(EXPR kernels "${kernels} + 1") endif() endforeach() if (kernels LESS 20)
                            message(FATAL_ERROR "${object}: only ${kernels} symbols found; is ${NM} the right tool?")
                                endif() endforeach()
