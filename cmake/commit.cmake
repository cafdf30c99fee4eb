# cmake -DSOURCE=... -DOUT=... -P commit.cmake writes the header that holds the commit of the sources, at every build;
# the file keeps its time where nothing changed, so that nothing is compiled again.
execute_process(COMMAND git -C ${SOURCE} describe --always --abbrev=12 --dirty=+changes --exclude=*
  OUTPUT_VARIABLE commit OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE failed)
if(failed OR commit STREQUAL "")
  set(commit "unknown")  # sources without their repository
endif()
file(CONFIGURE OUTPUT ${OUT} CONTENT "#define MOETRON_COMMIT \"@commit@\"\n" @ONLY)
