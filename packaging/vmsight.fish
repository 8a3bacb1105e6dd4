# fish completion for vmsight: the program itself knows the words.
function __vmsight_complete
    set -l words (commandline -opc) (commandline -ct)
    vmsight --complete $words[2..-1] 2>/dev/null
end
complete -c vmsight -a '(__vmsight_complete)'
