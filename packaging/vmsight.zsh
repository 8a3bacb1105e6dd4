#compdef vmsight
# zsh completion for vmsight: the program itself knows the words.
_vmsight() {
  local -a candidates
  local line
  while IFS= read -r line; do
    # WORD:DESCRIPTION, or a WORD alone.
    line="${${line%%$'\t'*}//:/\\:}:${line#*$'\t'}"
    candidates+=("${line%:}")
  done < <(vmsight --complete "${(@)words[2,CURRENT]}" 2>/dev/null)
  if (( ${#candidates} )); then
    _describe vmsight candidates
  else
    _files
  fi
}
_vmsight "$@"
