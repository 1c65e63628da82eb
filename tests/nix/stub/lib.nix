# The functions of nixpkgs' lib that the flake uses, and an evaluator of modules: options with types, mkIf, mkMerge, priorities,
# submodules. Whatever is unknown or of the wrong type is an error, as there.
let
  inherit (builtins)
    attrNames
    concatLists
    concatMap
    elem
    elemAt
    filter
    foldl'
    head
    isAttrs
    isBool
    isFunction
    isInt
    isList
    isPath
    isString
    length
    listToAttrs
    map
    mapAttrs
    sort
    stringLength
    substring
    ;

  lib = {
    inherit types listToAttrs evalModules;
    genAttrs =
      names: f:
      listToAttrs (
        map (name: {
          inherit name;
          value = f name;
        }) names
      );
    optional = condition: x: if condition then [ x ] else [ ];
    optionals = condition: xs: if condition then xs else [ ];
    optionalString = condition: s: if condition then s else "";
    concatStringsSep = builtins.concatStringsSep;
    concatMapStringsSep = separator: f: xs: builtins.concatStringsSep separator (map f xs);
    mapAttrsToList = f: set: map (name: f name set.${name}) (attrNames set);
    filterAttrs =
      f: set:
      listToAttrs (
        map (name: {
          inherit name;
          value = set.${name};
        }) (filter (name: f name set.${name}) (attrNames set))
      );
    hasPrefix = prefix: s: substring 0 (stringLength prefix) s == prefix;
    removePrefix = prefix: s: if lib.hasPrefix prefix s then substring (stringLength prefix) (-1) s else s;
    assertMsg = condition: message: if condition then true else throw message;
    getLib = package: package.lib or package.out or package;
    makeBinPath = packages: builtins.concatStringsSep ":" (map (p: "${p}/bin") packages);
    makeLibraryPath = packages: builtins.concatStringsSep ":" (map (p: "${lib.getLib p}/lib") packages);
    callPackageWith =
      set: file: arguments:
      let
        function = if isFunction file then file else import file;
      in
      # lib/customisation.nix adds functions to whatever set a package's function returns.
      function (builtins.intersectAttrs (builtins.functionArgs function) set // arguments)
      // {
        override = more: lib.callPackageWith set file (arguments // more);
      };
    licenses.mit = {
      spdxId = "MIT";
    };
    platforms.linux = [
      "x86_64-linux"
      "aarch64-linux"
    ];
    mkOption = attrs: attrs // { _type = "option"; };
    mkEnableOption =
      text:
      lib.mkOption {
        type = types.bool;
        default = false;
        description = "Whether to enable ${text}.";
      };
    literalExpression = text: {
      _type = "literalExpression";
      inherit text;
    };
    mkIf = condition: content: {
      _type = "if";
      inherit condition content;
    };
    mkMerge = contents: {
      _type = "merge";
      inherit contents;
    };
    mkOverride = priority: content: {
      _type = "override";
      inherit priority content;
    };
    mkForce = lib.mkOverride 50;
    mkDefault = lib.mkOverride 1000;
  };

  kindOf = x: if isAttrs x then x._type or "" else "";
  show = path: builtins.concatStringsSep "." path;
  unique = foldl' (seen: x: if elem x seen then seen else seen ++ [ x ]) [ ];

  # A definition is { file, value }. Of a set that stands above options: conditions are pushed down to its members, as what is
  # in it must be known before any condition can be.
  expandSet =
    d:
    if kindOf d.value == "merge" then
      concatMap (v: expandSet (d // { value = v; })) d.value.contents
    else if kindOf d.value == "if" then
      map (e: e // { value = mapAttrs (_: lib.mkIf d.value.condition) e.value; }) (
        expandSet (d // { value = d.value.content; })
      )
    else
      [ d ];
  # Of an option: what is left when the conditions are known, with priorities.
  expandValue =
    d:
    if kindOf d.value == "merge" then
      concatMap (v: expandValue (d // { value = v; })) d.value.contents
    else if kindOf d.value == "if" then
      if d.value.condition then expandValue (d // { value = d.value.content; }) else [ ]
    else if kindOf d.value == "override" then
      expandValue (
        d
        // {
          inherit (d.value) priority;
          value = d.value.content;
        }
      )
    else
      [ d ];
  priorityOf = d: d.priority or 100;

  # The value of something with a type, from its definitions.
  merge =
    path: type: definitions:
    let
      values = concatMap expandValue definitions;
      strongest = foldl' (p: d: if priorityOf d < p then priorityOf d else p) 9999 values;
      winners = filter (d: priorityOf d == strongest) values;
      wrong = filter (d: !type.check d.value) winners;
    in
    if winners == [ ] then
      throw "The option `${show path}' is used but not defined."
    else if wrong != [ ] then
      throw "A definition for option `${show path}' is not of type `${type.name}'. It is in `${(head wrong).file}'."
    else
      type.merge path winners;

  isOption = x: kindOf x == "option";
  evalOption =
    path: option: definitions:
    (option.apply or (x: x)) (
      merge path option.type (
        definitions
        ++ lib.optional (option ? default) {
          file = "its default";
          value = lib.mkOverride 1500 option.default;
        }
      )
    );

  evalSet =
    path: declarations: definitions:
    let
      expanded = concatMap expandSet definitions;
      names = unique (concatMap attrNames declarations);
      unknown = concatMap (
        d:
        map (name: "The option `${show (path ++ [ name ])}' does not exist. It is defined in `${d.file}'.") (
          filter (name: !elem name names) (attrNames d.value)
        )
      ) expanded;
      member =
        name:
        let
          declared = map (d: d.${name}) (filter (d: d ? ${name}) declarations);
          defined = map (d: d // { value = d.value.${name}; }) (filter (d: d.value ? ${name}) expanded);
        in
        (if isOption (head declared) then x: evalOption x (head declared) else x: evalSet x declared) (
          path ++ [ name ]
        ) defined;
    in
    if unknown != [ ] then throw (head unknown) else lib.genAttrs names member;

  evalModules =
    {
      modules,
      specialArgs ? { },
      prefix ? [ ],
    }:
    let
      load =
        from: module:
        let
          named = isPath module || isString module;
          file = if named then toString module else from;
          raw = if named then import module else module;
          value = if isFunction raw then raw arguments else raw;
          explicit = value ? config || value ? options;
        in
        [
          {
            inherit file;
            options = value.options or { };
            config = if explicit then value.config or { } else removeAttrs value [ "imports" ];
          }
        ]
        ++ concatMap (load file) (value.imports or [ ]);
      arguments = {
        inherit config lib;
        pkgs = config._module.args.pkgs;
      }
      // specialArgs;
      loaded = concatMap (load "a module of the flake") modules;
      config =
        evalSet prefix
          (
            map (m: m.options) loaded
            ++ [
              {
                _module.args = lib.mkOption {
                  type = types.attrsOf types.raw;
                  default = { };
                };
              }
            ]
          )
          (
            map (m: {
              inherit (m) file;
              value = m.config;
            }) loaded
          );
    in
    {
      inherit config;
      options = map (m: m.options) loaded;
    };

  # ---- types: name, check of one value, merge of several definitions ----
  one =
    path: definitions:
    if length definitions == 1 || builtins.all (d: d.value == (head definitions).value) definitions then
      (head definitions).value
    else
      throw "The option `${show path}' has conflicting definition values.";
  simple = name: check: {
    inherit name check;
    merge = one;
  };
  isDerivation = x: isAttrs x && x.type or "" == "derivation";
  attrsWith = lazy: element: {
    name = "attribute set of ${element.name}";
    check = x: isAttrs x && !isDerivation x;
    merge =
      path: definitions:
      let
        sets = concatMap expandSet definitions;
        valueOf =
          name:
          merge (path ++ [ name ]) element (
            map (d: d // { value = d.value.${name}; }) (filter (d: d.value ? ${name}) sets)
          );
        # A member of which nothing is left, as its conditions are false, is not there.
        there =
          name:
          concatMap (d: if d.value ? ${name} then expandValue { inherit (d) file; value = d.value.${name}; } else [ ]) sets
          != [ ];
      in
      lib.genAttrs (filter (name: lazy || there name) (unique (concatMap (d: attrNames d.value) sets))) valueOf;
  };
  types = {
    raw = simple "raw value" (_: true);
    unspecified = types.raw;
    bool = simple "boolean" isBool;
    int = simple "signed integer" isInt;
    port = simple "16 bit unsigned integer" (x: isInt x && x >= 0 && x <= 65535);
    str = simple "string" isString;
    nonEmptyStr = simple "non-empty string" (x: isString x && x != "");
    strMatching = pattern: simple "string matching ${pattern}" (x: isString x && builtins.match pattern x != null);
    path = simple "path" (x: isPath x || isDerivation x || (isString x && substring 0 1 x == "/"));
    package = simple "package" isDerivation;
    enum = values: simple "one of ${builtins.toJSON values}" (x: elem x values);
    lines = simple "lines" isString // {
      merge = _: definitions: builtins.concatStringsSep "\n" (map (d: d.value) definitions);
    };
    attrs = simple "attribute set" isAttrs // {
      merge = _: definitions: foldl' (a: d: a // d.value) { } definitions;
    };
    anything = simple "anything" (_: true) // {
      merge =
        path: definitions:
        if builtins.all (d: isAttrs d.value && !isDerivation d.value) definitions then
          (attrsWith false types.anything).merge path definitions
        else
          one path definitions;
    };
    nullOr = element: {
      name = "null or ${element.name}";
      check = x: x == null || element.check x;
      merge =
        path: definitions:
        if builtins.all (d: d.value == null) definitions then null else element.merge path definitions;
    };
    either = a: b: {
      name = "${a.name} or ${b.name}";
      check = x: a.check x || b.check x;
      merge =
        path: definitions:
        (if builtins.all (d: a.check d.value) definitions then a else b).merge path definitions;
    };
    oneOf = ts: foldl' types.either (head ts) (builtins.tail ts);
    listOf = element: {
      name = "list of ${element.name}";
      check = isList;
      merge =
        path: definitions:
        concatLists (
          map (
            d:
            concatMap (
              v:
              let
                values = expandValue (d // { value = v; });
              in
              lib.optional (values != [ ]) (merge path element values)
            ) d.value
          ) definitions
        );
    };
    attrsOf = attrsWith false;
    lazyAttrsOf = attrsWith true;
    submodule =
      module:
      {
        name = "submodule";
        check = x: isAttrs x || isFunction x;
        merge =
          path: definitions:
          removeAttrs (evalModules {
            prefix = path;
            modules = [ module ] ++ map (d: { config = d.value; }) definitions;
            specialArgs.name = elemAt path (length path - 1);
          }).config [ "_module" ];
      };
  };
in
lib
