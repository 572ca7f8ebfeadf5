-- Search by a text, without regard to case (voicequeue/domain/search_text.py).

-- Return a function that returns whether a text may be found in a job: as a whole id, key or metadata value, or at the
-- beginning of a word of a name. `search`: forms (of the text, folded: composed and decomposed), parts (the same as they
-- are in a spec), whole (only whole values), fold (what letters beyond ASCII become).
local SEARCHED_FIELDS = { 'persona_id', 'voice_name', 'orders', 'message_ids', 'spec' }
local function text_search(search)
  local find, is_form, first_bytes, is_listed = string.find, {}, {}, {}
  for _, form in ipairs(search.forms) do is_form[form], is_form['message-' .. form] = true, true end
  for letter in pairs(search.fold) do
    local byte = letter:sub(1, 1)
    if not is_listed[byte] then first_bytes[#first_bytes + 1], is_listed[byte] = byte, true end
  end

  -- Most texts have none of these letters: to look for their first bytes is much faster than to visit each character.
  local function fold(text)
    text = text:lower()
    for _, byte in ipairs(first_bytes) do
      if find(text, byte, 1, true) then return (text:gsub('[\194-\244][\128-\191]*', search.fold)) end
    end
    return text
  end

  local function has_part(text, parts)
    for _, part in ipairs(parts) do
      if find(text, part, 1, true) then return true end
    end
    return false
  end

  local function equals(value) return type(value) == 'string' and is_form[fold(value)] end

  local function has_message(ids)
    for _, id in ipairs(cjson.decode(ids)) do
      if equals(id) then return true end
    end
    return false
  end

  local function begins_word(text, form)
    local at = find(text, form, 1, true)
    while at and at > 1 and find(text:sub(at - 1, at - 1), '%w') do at = find(text, form, at + 1, true) end
    return at
  end

  local function is_named(name)
    if search.whole or type(name) ~= 'string' then return equals(name) end
    for _, form in ipairs(search.forms) do
      if begins_word(fold(name), form) then return true end
    end
    return false
  end

  local function is_in_spec(text)
    if not has_part(fold(text), search.parts) then return false end
    local spec = cjson.decode(text)
    if equals(spec.key) or is_named(spec.name) or type(spec.song) == 'table' and is_named(spec.song.title) then return true end
    for _, value in pairs(type(spec.metadata) == 'table' and spec.metadata or {}) do
      if equals(value) then return true end
    end
    return equals(spec.persona_id)
  end

  return function(id, persona, name, orders, messages, spec)
    return is_form[id] or persona and equals(persona) or name and is_named(name) or orders and has_part(fold(orders), search.forms)
      or messages and has_message(messages) or is_in_spec(spec)
  end
end
