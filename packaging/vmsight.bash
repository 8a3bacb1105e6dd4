# bash completion for vmsight: the program itself knows the words.
_vmsight() {
  local IFS=$'\n'
  mapfile -t COMPREPLY < <(vmsight --complete "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null | cut -f1)
  # No words of its own: file names.
  [ ${#COMPREPLY[@]} -gt 0 ] || mapfile -t COMPREPLY < <(compgen -f -- "${COMP_WORDS[COMP_CWORD]}")
  [[ ${COMPREPLY[0]:-} != *, ]] || compopt -o nospace
}
complete -o filenames -F _vmsight vmsight
