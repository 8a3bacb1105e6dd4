# bash completion for vmsight: the program itself knows the words.
_vmsight() {
  local IFS=$'\n' word words=() broken=
  # bash breaks words at ':', which names such as "halt-snap:dump" have, and puts in the last part.
  for word in "${COMP_WORDS[@]:1:COMP_CWORD}"; do
    if [[ ${#words[@]} -gt 0 && ($word == :* || ${words[-1]} == *:) ]]; then
      words[-1]+=$word
    else
      words+=("$word")
    fi
  done
  mapfile -t COMPREPLY < <(vmsight --complete "${words[@]}" 2>/dev/null | cut -f1)
  [[ $COMP_WORDBREAKS != *:* || ${words[-1]} != *:* ]] || broken=${words[-1]%:*}:
  COMPREPLY=("${COMPREPLY[@]#"$broken"}")
  if [ ${#COMPREPLY[@]} -eq 0 ]; then  # no words of its own: file names
    compopt -o filenames
    mapfile -t COMPREPLY < <(compgen -f -- "${COMP_WORDS[COMP_CWORD]}")
  fi
  [[ ${COMPREPLY[0]:-} != *, ]] || compopt -o nospace
}
complete -F _vmsight vmsight
