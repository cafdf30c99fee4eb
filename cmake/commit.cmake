# cmake -DSOURCE=... -DVERSION=... -DIN=... -DOUT=... -P commit.cmake writes the source that knows the commit, at every
# build; the file keeps its time where nothing changed, so that nothing is compiled again.
execute_process(COMMAND git -C ${SOURCE} describe --always --abbrev=12 --dirty=+changes --exclude=*
  OUTPUT_VARIABLE commit OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE failed)
if(failed OR commit STREQUAL "")
  set(commit "unknown")  # sources without their repository
endif()
configure_file(${IN} ${OUT} @ONLY)
